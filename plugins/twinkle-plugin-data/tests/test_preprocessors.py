"""The preprocessors, on rows as their data sets have them."""

from __future__ import annotations

import copy
import json

import pytest

from twinkle.errors import ConfigError, DataError
from twinkle.preprocessor import AlpacaProcessor, GSM8KProcessor, SelfCognitionProcessor
from twinkle.preprocessor.llm import GSM8KProcessor as OldGSM8KProcessor


def texts(trajectory):
    return [(message["role"], message["content"]) for message in trajectory["messages"]]


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# -- self-cognition


def test_name_and_author_are_filled_in_in_either_case():
    process = SelfCognitionProcessor("twinkle LLM", "ModelScope Community")
    row = {"query": "Is {{NAME}} you?", "response": "I am {{NAME}} by {{author}}, {{ name }}.", "tag": "en"}
    assert texts(process.preprocess(row)) == [
        ("user", "Is twinkle LLM you?"),
        ("assistant", "I am twinkle LLM by ModelScope Community, twinkle LLM."),
    ]


@pytest.mark.parametrize(("tag", "answer"), [("zh", "小闪 社区"), ("en", "Twinkle Team"), (None, "Twinkle Team")])
def test_a_pair_gives_chinese_rows_their_own_name(tag, answer):
    process = SelfCognitionProcessor(model_name=("小闪", "Twinkle"), model_author=["社区", "Team"])
    assert texts(process.preprocess({"query": "?", "response": "{{NAME}} {{AUTHOR}}", "tag": tag}))[-1] == ("assistant", answer)


def test_a_name_that_looks_like_a_placeholder_or_a_pattern_is_taken_as_it_is():
    process = SelfCognitionProcessor("{{AUTHOR}}", r"\1 & co")
    assert texts(process.preprocess({"query": "?", "response": "{{NAME}}, {{AUTHOR}}"}))[-1] == (
        "assistant",
        r"{{AUTHOR}}, \1 & co",
    )


def test_a_system_message_may_come_first():
    process = SelfCognitionProcessor("a", "b", system="Be brief.")
    assert texts(process.preprocess({"query": "q", "response": "r"}))[0] == ("system", "Be brief.")


@pytest.mark.parametrize("name", [("one",), ("a", "b", "c"), (1, 2)])
def test_a_name_that_is_neither_text_nor_a_pair_is_an_error(name):
    with pytest.raises(ConfigError, match="model_name has to be text, or a pair"):
        SelfCognitionProcessor(name, "author")


def test_the_data_of_ms_swift_is_understood(shared):
    rows = read(shared / "self_cognition.jsonl")
    made = SelfCognitionProcessor("N", "A")(rows)
    assert len(made) == len(rows) == 134
    assert not any("{{" in message["content"] for trajectory in made for message in trajectory["messages"])


# -- Alpaca


@pytest.mark.parametrize(("extra", "query"), [("data", "do\n\ndata"), ("", "do"), (None, "do")])
def test_alpaca_joins_instruction_and_input(extra, query):
    assert texts(AlpacaProcessor().preprocess({"instruction": "do", "input": extra, "output": "done"})) == [
        ("user", query),
        ("assistant", "done"),
    ]


def test_alpaca_history_stands_between_system_and_question():
    row = {"instruction": "q2", "output": "a2", "history": [["q1", "a1"]], "system": "row's"}
    assert texts(AlpacaProcessor(system="given").preprocess(row)) == [
        ("system", "row's"),
        ("user", "q1"),
        ("assistant", "a1"),
        ("user", "q2"),
        ("assistant", "a2"),
    ]


def test_alpaca_data_is_understood(shared):
    assert len(AlpacaProcessor()(read(shared / "alpaca_self_instruct.jsonl"))) == 175


# -- GSM8K

WORKED = {"question": "How many?", "answer": "It is 20*60=<<20*60=1200>>1,200.\n#### 1,200"}


def test_gsm8k_is_a_prompt_with_the_number_to_be_found():
    trajectory = GSM8KProcessor(system="Think.").preprocess(WORKED)
    assert texts(trajectory) == [("system", "Think."), ("user", "How many?")]
    assert trajectory["user_data"] == {"ground_truth": "1200"}


def test_gsm8k_can_end_with_the_answer_to_be_trained_on():
    assert texts(GSM8KProcessor(add_assistant=True).preprocess(WORKED))[-1] == ("assistant", "It is 20*60=1,200.\n#### 1,200")
    kept = GSM8KProcessor(add_assistant=True, keep_calculations=True).preprocess(WORKED)
    assert texts(kept)[-1] == ("assistant", WORKED["answer"])


def test_gsm8k_data_is_understood(shared):
    truths = [made["user_data"]["ground_truth"] for made in GSM8KProcessor()(read(shared / "gsm8k_train.jsonl"))]
    assert len(truths) == 7473
    assert all(float(truth) is not None for truth in truths)


def test_gsm8k_without_a_result_is_an_error():
    with pytest.raises(DataError, match="'answer' has no '####'"):
        GSM8KProcessor().preprocess({"question": "q", "answer": "a"})


# -- all of them


@pytest.mark.parametrize(
    ("process", "row"),
    [
        (SelfCognitionProcessor("a", "b"), {"query": "q", "response": "r"}),
        (AlpacaProcessor(), {"instruction": "i", "output": "o", "history": [["a", "b"]]}),
        (GSM8KProcessor(), WORKED),
    ],
    ids=["self-cognition", "alpaca", "gsm8k"],
)
def test_rows_are_not_changed_and_missing_fields_are_named(process, row):
    before = copy.deepcopy(row)
    process.preprocess(row)
    assert row == before
    needed = next(iter(row))
    with pytest.raises(DataError, match=f"there is no field '{needed}'"):
        process.preprocess({name: value for name, value in row.items() if name != needed})
    with pytest.raises(DataError, match=f"'{needed}' has to be text, not None"):
        process.preprocess({**row, needed: None})


def test_the_path_of_existing_scripts_gives_the_same_class():
    assert OldGSM8KProcessor is GSM8KProcessor
