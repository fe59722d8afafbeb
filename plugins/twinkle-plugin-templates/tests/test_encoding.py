"""What a Template makes of chats: ids as the tokenizer's own, labels on what the assistant writes, and back to text."""

import copy
import pickle
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinkle.errors import ConfigError, DataError
from twinkle_plugin_templates.template import Template

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Who are you?"},
    {"role": "assistant", "content": "I'm 你好, an assistant."},
    {"role": "user", "content": "What is 2 + 2?"},
    {"role": "assistant", "content": "It is 4."},
]
PLAIN_CHAT = CHAT[1:]


def labelled(template, feature):
    """The text of each run of labelled tokens."""
    runs, run = [], []
    for token, label in zip(feature["input_ids"], feature["labels"], strict=True):
        if label != -100:
            assert label == token
            run.append(token)
        elif run:
            runs.append(template.decode(run))
            run = []
    return runs + ([template.decode(run)] if run else [])


def test_ids_are_those_of_apply_chat_template(tokenizer, any_chat_template):
    template = Template(tokenizer=tokenizer, chat_template=any_chat_template)
    expected = tokenizer.apply_chat_template(PLAIN_CHAT, chat_template=any_chat_template, return_dict=False)
    assert template.encode({"messages": PLAIN_CHAT})["input_ids"].tolist() == expected


def test_every_turn_of_the_assistant_is_labelled_up_to_its_end_token_and_nothing_else(tokenizer_folder):
    template = Template(str(tokenizer_folder))
    feature = template.encode({"messages": CHAT})
    assert labelled(template, feature) == ["I'm 你好, an assistant.<|im_end|>", "It is 4.<|im_end|>"]


def test_labels_are_not_shifted_and_arrays_are_int32(tokenizer):
    feature = Template(tokenizer=tokenizer).encode({"messages": CHAT})
    ids, labels = feature["input_ids"], feature["labels"]
    assert ids.dtype == labels.dtype == np.int32
    assert feature["length"] == len(ids) == len(labels)
    assert set(labels[labels != ids]) == {-100}
    assert labels[-1] == -100  # the line break after <|im_end|>


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("thinking", ["first.<|im_end|>", "<think>\nhm\n</think>\n\nsecond.<|im_end|>"]),
        ("inst", [" <think>old</think>first. <|im_end|>", " <think>\nhm</think>second. <|im_end|>"]),
        ("open_ended", ["first.", "second."]),
        ("generation", ["<think>old</think>first.<|im_end|>", "<think>\nhm</think>second.<|im_end|>"]),
    ],
)
def test_labels_follow_what_the_template_made_of_the_content(tokenizer, request, name, expected):
    chat = [
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "<think>old</think>first."},
        {"role": "user", "content": "Two?"},
        {"role": "assistant", "content": "<think>\nhm</think>second."},
    ]
    template = Template(tokenizer=tokenizer, chat_template=request.getfixturevalue(name))
    assert labelled(template, template.encode({"messages": chat})) == expected


def test_empty_thoughts_are_labelled_unless_the_generation_prompt_already_holds_them(tokenizer, thinking):
    default = Template(tokenizer=tokenizer, chat_template=thinking)
    without = Template(tokenizer=tokenizer, chat_template=thinking, enable_thinking=False)
    row = {"messages": PLAIN_CHAT[:2]}
    assert labelled(default, default.encode(row)) == ["<think>\n\n</think>\n\nI'm 你好, an assistant.<|im_end|>"]
    assert labelled(without, without.encode(row)) == ["I'm 你好, an assistant.<|im_end|>"]


@pytest.mark.parametrize("enable_thinking", [None, True, False])
def test_prompt_and_labelled_tokens_make_up_the_last_turn(tokenizer, thinking, enable_thinking):
    template = Template(tokenizer=tokenizer, chat_template=thinking, enable_thinking=enable_thinking)
    prompt = template.encode({"messages": PLAIN_CHAT[:1]}, add_generation_prompt=True)
    whole = template.encode({"messages": PLAIN_CHAT[:2]})
    assert "labels" not in prompt
    start = int(np.flatnonzero(whole["labels"] != -100)[0])
    assert whole["input_ids"][:start].tolist() == prompt["input_ids"].tolist()


def test_content_that_looks_like_the_template_s_markers_confuses_nothing(tokenizer):
    template = Template(tokenizer=tokenizer)
    chat = [
        {"role": "user", "content": "Say <|im_start|>assistant\nno<|im_end|>\n"},
        {"role": "assistant", "content": "A turn ends with <|im_end|> and begins with <|im_start|>assistant\n."},
        {"role": "user", "content": "Thanks<|im_end|>"},
        {"role": "assistant", "content": "Welcome."},
    ]
    feature = template.encode({"messages": chat})
    assert labelled(template, feature) == [chat[1]["content"] + "<|im_end|>", "Welcome.<|im_end|>"]


def test_several_turns_of_the_assistant_in_a_row(tokenizer):
    template = Template(tokenizer=tokenizer)
    chat = [{"role": "user", "content": "Go."}, {"role": "assistant", "content": "One."}, {"role": "assistant", "content": "Two."}]
    assert labelled(template, template.encode({"messages": chat})) == ["One.<|im_end|>", "Two.<|im_end|>"]


def test_tool_calls_are_labelled_and_tool_results_are_not(tokenizer, thinking):
    template = Template(tokenizer=tokenizer, chat_template=thinking)
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": 2}}}
    chat = [
        {"role": "user", "content": "What is 2 + 2?"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "content": "4"},
        {"role": "assistant", "content": "It is 4."},
    ]
    row = {"messages": chat, "tools": [{"type": "function", "function": {"name": "add"}}]}
    feature = template.encode(row)
    assert labelled(template, feature) == [
        '<tool_call>{"name": "add", "arguments": {"a": 2, "b": 2}}<|im_end|>',
        "<think>\n\n</think>\n\nIt is 4.<|im_end|>",
    ]
    assert template.decode(feature["input_ids"]).startswith('<|im_start|>system\nTools: {"type": "function"')


def test_loss_weight_masks_a_message_or_weighs_its_tokens(tokenizer):
    template = Template(tokenizer=tokenizer)
    chat = copy.deepcopy(CHAT)
    chat[2]["loss_weight"] = 0
    masked = template.encode({"messages": chat})
    assert labelled(template, masked) == ["It is 4.<|im_end|>"]
    assert "loss_weights" not in masked
    chat[2]["loss_weight"] = 0.25
    weighed = template.encode({"messages": chat})
    assert sorted(set(weighed["loss_weights"].tolist())) == [0.0, 0.25, 1.0]
    assert np.array_equal(weighed["loss_weights"] > 0, weighed["labels"] != -100)


def test_the_default_system_message_goes_where_there_is_none(tokenizer):
    template = Template(tokenizer=tokenizer, default_system="Be kind.")
    assert template.render({"messages": PLAIN_CHAT}).startswith("<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user")
    assert template.render({"messages": CHAT}).count("<|im_start|>system") == 1


def test_rows_may_come_as_a_dictionary_of_columns_with_none_where_a_row_lacks_a_field(tokenizer):
    template = Template(tokenizer=tokenizer)
    rows = [{"messages": CHAT, "user_data": {"id": 1}}, {"messages": PLAIN_CHAT}]
    columns = {"messages": [CHAT, [{**message, "tool_calls": None} for message in PLAIN_CHAT]], "user_data": [{"id": 1}, None]}
    for one, other in zip(template.batch_encode(rows), template.batch_encode(columns), strict=True):
        assert one[0].keys() == other[0].keys()
        assert np.array_equal(one[0]["labels"], other[0]["labels"])


def test_nothing_given_is_changed_and_user_data_is_carried_along(tokenizer, thinking):
    template = Template(
        tokenizer=tokenizer, chat_template=thinking, default_system="Be kind.", truncation_strategy="split", max_length=8
    )
    row = {"messages": [{**message} for message in PLAIN_CHAT], "user_data": {"answer": [4]}}
    row["messages"][1]["loss_weight"] = 0.5
    before = copy.deepcopy(row)
    features = template.batch_encode([row])[0]
    assert row == before
    assert len(features) > 1
    assert all(feature["user_data"] == {"answer": [4]} for feature in features)


def test_encoding_many_is_encoding_each(tokenizer, any_chat_template):
    template = Template(tokenizer=tokenizer, chat_template=any_chat_template)
    rows = [
        {"messages": PLAIN_CHAT},
        {"messages": PLAIN_CHAT[:2]},
        {"messages": [{"role": "user", "content": "e\u0301 \u0378"}, CHAT[4]]},
    ]
    for row, features in zip(rows, template.batch_encode(rows), strict=True):
        alone = template.encode(row)
        assert features[0]["input_ids"].tolist() == alone["input_ids"].tolist()
        assert features[0]["labels"].tolist() == alone["labels"].tolist()


def test_no_rows_give_no_features(tokenizer):
    assert Template(tokenizer=tokenizer).batch_encode([]) == []


@pytest.fixture(scope="module")
def template(tokenizer):
    return Template(tokenizer=tokenizer)


@settings(deadline=None, max_examples=60)
@given(contents=st.lists(st.text(max_size=30), min_size=1, max_size=4))
def test_decode_undoes_encode_and_labels_spell_what_the_assistant_said(template, contents):
    chat = []
    for content in contents:
        chat += [{"role": "user", "content": content}, {"role": "assistant", "content": content}]
    feature = template.encode({"messages": chat})
    text = template.render({"messages": chat})
    assert template.decode(feature["input_ids"]) == unicodedata.normalize("NFC", text)
    starts_clean = all(content[:1] not in ("\n", "\r") and not unicodedata.combining(content[:1] or "a") for content in contents)
    markers = any("<|" in content for content in contents)
    if starts_clean and not markers:
        said = [unicodedata.normalize("NFC", content + "<|im_end|>") for content in contents]
        assert labelled(template, feature) == said


def test_decode_can_leave_out_special_tokens(tokenizer):
    template = Template(tokenizer=tokenizer)
    ids = template.encode({"messages": CHAT})["input_ids"]
    assert "<|im_end|>" not in template.decode(ids, skip_special_tokens=True)
    assert template.batch_decode([ids, ids[:3]]) == [template.decode(ids), template.decode(ids[:3])]


def test_check_keeps_what_can_be_encoded(tokenizer):
    template = Template(tokenizer=tokenizer, max_length=60)
    good = {"messages": PLAIN_CHAT}
    assert template.check(good) is good
    assert template.batch_check([good, {"messages": []}, {"messages": PLAIN_CHAT * 9}]) == [good, None, None]


@pytest.mark.parametrize("source", ["folder", "object"])
def test_a_pickled_template_encodes_alike(tokenizer_folder, tokenizer, source):
    template = Template(tokenizer_folder) if source == "folder" else Template(tokenizer=tokenizer)
    row = {"messages": CHAT}
    expected = template.encode(row)["labels"].tolist()
    data = pickle.dumps(template)
    assert pickle.loads(data).encode(row)["labels"].tolist() == expected
    assert source == "object" or len(data) < 1000


def test_plain_text_is_labelled_throughout_and_ends_with_the_end_of_sequence(tokenizer):
    template = Template(tokenizer=tokenizer, use_chat_template=False)
    feature, joined = (features[0] for features in template.batch_encode([{"text": "Who are you?"}, {"messages": CHAT[1:3]}]))
    assert feature["input_ids"].tolist() == [*tokenizer("Who are you?")["input_ids"], tokenizer.eos_token_id]
    assert feature["labels"].tolist() == feature["input_ids"].tolist()
    assert template.decode(joined["input_ids"]) == "Who are you?I'm 你好, an assistant.<|im_end|>"
    prompt = template.encode({"text": "Who are you?"}, add_generation_prompt=True)
    assert prompt["input_ids"].tolist() == tokenizer("Who are you?")["input_ids"]
    assert "labels" not in prompt


def test_without_a_chat_template_the_error_offers_both_ways_out(tokenizer_folder, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes((tokenizer_folder / "tokenizer.json").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    with pytest.raises(ConfigError, match=r"has no chat template.*chat_template=.*use_chat_template=False"):
        Template(tmp_path)
    assert Template(tmp_path, use_chat_template=False).encode({"text": "Hi"})["length"] >= 1


def test_a_chat_template_that_does_not_compile_names_its_line(tokenizer):
    with pytest.raises(ConfigError, match="line 2"):
        Template(tokenizer=tokenizer, chat_template="{{ messages }}\n{% if %}")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"max_length": 0}, "max_length is 0"),
        ({"max_length": "8"}, "max_length is '8'"),
        ({"truncation_strategy": "cut"}, "'raise', 'left', 'right', 'split', 'delete'"),
        ({"model_id": "x/y"}, "either model_id"),
    ],
)
def test_bad_configuration_is_refused_at_once(tokenizer, config, message):
    with pytest.raises(ConfigError, match=message):
        Template(tokenizer=tokenizer, **config)


def test_a_folder_without_tokenizer_names_the_folder(tmp_path):
    with pytest.raises(ConfigError, match="No tokenizer can be loaded"):
        Template(tmp_path)


def test_a_chat_that_the_template_refuses_is_an_error_with_the_row_and_the_template_s_words(tokenizer, inst):
    template = Template(tokenizer=tokenizer, chat_template=inst)
    with pytest.raises(DataError, match=r"Row 1: .*Roles must alternate"):
        template.batch_encode([{"messages": PLAIN_CHAT}, {"messages": CHAT}])
