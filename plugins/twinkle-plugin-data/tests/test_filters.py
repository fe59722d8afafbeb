"""The filters: which rows they keep."""

from __future__ import annotations

import numpy as np
import pytest

from twinkle.errors import ConfigError, DataError
from twinkle_plugin_data.filters import ChoiceFilter, LengthFilter, RequiredFieldsFilter


@pytest.mark.parametrize(("length", "kept"), [(1, False), (2, True), (4, True), (5, False)])
def test_length_keeps_rows_of_so_many_tokens_both_ends_included(length, kept):
    assert LengthFilter(max_length=4, min_length=2)({"input_ids": np.zeros(length)}) is kept


def test_length_counts_characters_of_text_and_of_messages(chat):
    assert LengthFilter(3, field="text")({"text": "abc"})
    assert LengthFilter(5, field="messages")(chat("abc", "de"))
    assert not LengthFilter(4, field="messages")(chat("abc", "de"))
    parts = {"messages": [{"role": "user", "content": [{"type": "text", "text": "abc"}, {"type": "image"}]}]}
    assert LengthFilter(3, field="messages")(parts)


@pytest.mark.parametrize(
    ("row", "message"), [({"a": 1}, "no field 'input_ids'.*once they are encoded"), ({"input_ids": 3}, "has no length")]
)
def test_a_row_without_a_length_is_an_error(row, message):
    with pytest.raises(DataError, match=message):
        LengthFilter(3)(row)


def test_a_range_that_keeps_nothing_is_an_error():
    with pytest.raises(ConfigError, match="keeps nothing"):
        LengthFilter(max_length=1, min_length=2)


@pytest.mark.parametrize(
    ("value", "kept"), [("x", True), (0, True), (False, True), ([1], True), ("", False), (" \n", False), (None, False), ([], False)]
)
def test_required_fields_have_to_hold_something(value, kept):
    assert RequiredFieldsFilter(["a"])({"a": value}) is kept


def test_required_fields_have_to_be_there_all_of_them():
    assert not RequiredFieldsFilter(["a", "b"])({"a": 1})
    assert RequiredFieldsFilter("ab")({"ab": 1})


@pytest.mark.parametrize(("row", "kept"), [({"tag": "en"}, True), ({"tag": "zh"}, False), ({}, False)])
def test_choices_keep_or_exclude_rows(row, kept):
    assert ChoiceFilter("tag", ["en", "fr"])(row) is kept
    assert ChoiceFilter("tag", ["en", "fr"], exclude=True)(row) is not kept
