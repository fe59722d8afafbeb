"""Malformed rows are errors that name the row, the message and the field."""

import pytest

from twinkle.errors import DataError
from twinkle_plugin_templates.template import Template

GOOD = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}


def with_message(**changes):
    return {"messages": [GOOD["messages"][0], {**GOOD["messages"][1], **changes}]}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("text", "Row 1 is of type str"),
        ({"question": "?", "answer": "!"}, r"Row 1 has no messages \(its fields: 'question', 'answer'\)"),
        ({"messages": []}, "Row 1 has no messages"),
        ({"messages": "Hi"}, "Row 1 has 'messages' of type str"),
        ({"messages": ["Hi"]}, "Row 1, message 0 is of type str"),
        (with_message(role="bot"), "Row 1, message 1: 'role' is 'bot'. Known roles: system, developer, user, assistant, tool"),
        (with_message(role=None), "Row 1, message 1: 'role' is None"),
        (with_message(content=None), r"Row 1, message 1 \(role 'assistant'\) has no 'content'"),
        (with_message(content=4), r"Row 1, message 1 .*'content' is of type int"),
        (with_message(content=[{"text": "Hi"}]), "Row 1, message 1: part 0 of 'content' is no dictionary with a 'type'"),
        (with_message(content=[{"type": "text"}]), "Row 1, message 1: part 0 of 'content' has type 'text' and no 'text'"),
        (with_message(loss_weight=-1), "Row 1, message 1: 'loss_weight' is -1"),
        (with_message(loss_weight=float("nan")), "Row 1, message 1: 'loss_weight' is nan"),
        (with_message(role="user", loss_weight=1), "Row 1, message 1 .*only assistant turns are trained on"),
        ({**GOOD, "tools": ["add"]}, "Row 1: 'tools' has to be a list of dictionaries"),
        (with_message(content="half a pair: \ud83d"), r"Row 1 holds .*half of a surrogate pair"),
    ],
)
def test_a_malformed_row_is_named_with_its_field(tokenizer, row, message):
    with pytest.raises(DataError, match=message):
        Template(tokenizer=tokenizer).batch_encode([GOOD, row])


@pytest.mark.parametrize("row", [{"text": 4}, {"label": "x"}])
def test_plain_text_rows_need_text(tokenizer, row):
    with pytest.raises(DataError, match="Row 0"):
        Template(tokenizer=tokenizer, use_chat_template=False).batch_encode([row])


def test_columns_of_unequal_length_are_refused(tokenizer):
    with pytest.raises(DataError, match="'messages': 1, 'user_data': 2"):
        Template(tokenizer=tokenizer).batch_encode({"messages": [GOOD["messages"]], "user_data": [{}, {}]})


def test_text_parts_are_joined(tokenizer):
    template = Template(tokenizer=tokenizer)
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo."}]
    assert template.render(with_message(content=parts)) == template.render(GOOD)


def test_parts_that_are_no_text_are_refused(tokenizer):
    with pytest.raises(DataError, match=r"Row 0, message 1: .*image"):
        Template(tokenizer=tokenizer).batch_encode([with_message(content=[{"type": "image", "image": "cat.png"}])])


def test_a_turn_that_cannot_be_found_is_an_error_and_not_a_guess(tokenizer):
    upper = "{%- for message in messages %}{{- message.role + ':' + (message.content | upper) + '\\n' }}{%- endfor %}"
    with pytest.raises(DataError, match=r"Row 0: the assistant's turn in message 1 can't be located.*generation"):
        Template(tokenizer=tokenizer, chat_template=upper).batch_encode([GOOD])


def test_weights_need_one_generation_block_a_message(tokenizer, generation):
    silent = generation.replace("message.role == 'assistant'", "message.role == 'assistant' and loop.last")
    template = Template(tokenizer=tokenizer, chat_template=silent)
    row = {"messages": [*GOOD["messages"], *with_message(loss_weight=0.5)["messages"]]}
    with pytest.raises(DataError, match=r"Row 0: .*1 {% generation %} blocks don't match the assistant's 2 messages"):
        template.batch_encode([row])
