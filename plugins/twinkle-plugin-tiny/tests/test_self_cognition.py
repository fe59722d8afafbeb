"""The self-cognition set: what its card says, and what training on it needs."""

import json
from collections import Counter
from pathlib import Path

import pytest

import twinkle_plugin_tiny

FILE = Path(twinkle_plugin_tiny.__file__).parent / "data" / "self-cognition" / "self_cognition.jsonl"
ROWS = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]


def test_every_row_has_a_question_an_answer_and_a_language():
    for row in ROWS:
        assert set(row) == {"query", "response", "tag"}
        assert row["query"].strip()
        assert row["query"] == row["query"].strip()


def test_both_languages_have_their_half():
    assert Counter(row["tag"] for row in ROWS) == {"en": 197, "zh": 180}


def test_every_answer_holds_the_name_and_the_author_and_no_question_does():
    for row in ROWS:
        assert "{{NAME}}" in row["response"]
        assert "{{AUTHOR}}" in row["response"]
        assert "{{" not in row["query"]
        assert row["response"].count("{{") == row["response"].count("}}") == 2


@pytest.mark.parametrize(("tag", "chinese"), [("en", False), ("zh", True)])
def test_rows_are_in_the_language_of_their_tag(tag, chinese):
    for row in ROWS:
        if row["tag"] == tag:
            assert any("一" <= letter <= "鿿" for letter in row["response"]) is chinese
            assert any("一" <= letter <= "鿿" for letter in row["query"]) is chinese


def test_no_row_comes_twice_and_questions_are_varied():
    assert len({(row["query"], row["response"]) for row in ROWS}) == len(ROWS)
    assert len({row["query"] for row in ROWS}) == 254
