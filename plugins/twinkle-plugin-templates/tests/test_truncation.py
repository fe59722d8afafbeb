"""What happens to rows that are longer than max_length."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinkle.errors import DataError
from twinkle_plugin_templates.template import Template

ROW = {
    "messages": [
        {"role": "user", "content": "What is 2 + 2?"},
        {"role": "assistant", "content": "It is 4.", "loss_weight": 0.5},
    ]
}


def test_raise_names_the_row_its_length_the_limit_and_the_ways_out(tokenizer):
    length = Template(tokenizer=tokenizer).encode(ROW)["length"]
    template = Template(tokenizer=tokenizer, max_length=length - 1)
    with pytest.raises(DataError, match=rf"Row 1 has {length} tokens, more than max_length={length - 1}\..*'delete'"):
        template.batch_encode([{"messages": ROW["messages"][:1]}, ROW])


def test_a_row_of_exactly_max_length_fits(tokenizer):
    length = Template(tokenizer=tokenizer).encode(ROW)["length"]
    assert Template(tokenizer=tokenizer, max_length=length).encode(ROW)["length"] == length


@pytest.mark.parametrize(("strategy", "kept"), [("left", slice(-9, None)), ("right", slice(0, 9))])
def test_left_keeps_the_end_and_right_the_beginning(tokenizer, strategy, kept):
    whole = Template(tokenizer=tokenizer).encode(ROW)
    cut = Template(tokenizer=tokenizer, max_length=9, truncation_strategy=strategy).encode(ROW)
    assert cut["length"] == 9
    for name in ("input_ids", "labels", "loss_weights"):
        assert cut[name].tolist() == whole[name][kept].tolist()


@pytest.fixture(scope="module")
def splitter(tokenizer):
    return Template(tokenizer=tokenizer, truncation_strategy="split")


@settings(deadline=None, max_examples=30)
@given(max_length=st.integers(1, 60))
def test_split_pieces_put_together_are_the_row(splitter, max_length):
    splitter.max_length = None
    whole = splitter.encode(ROW)
    splitter.max_length = max_length
    pieces = splitter.batch_encode([ROW])[0]
    assert all(piece["length"] == len(piece["input_ids"]) <= max_length for piece in pieces)
    for name in ("input_ids", "labels", "loss_weights"):
        assert np.array_equal(np.concatenate([piece[name] for piece in pieces]), whole[name])


def test_delete_gives_no_feature_and_leaves_the_other_rows(tokenizer):
    template = Template(tokenizer=tokenizer, max_length=16, truncation_strategy="delete")
    short = {"messages": [{"role": "user", "content": "Hi"}]}
    assert [len(features) for features in template.batch_encode([short, ROW, short])] == [1, 0, 1]


@pytest.mark.parametrize(("strategy", "count"), [("delete", 0), ("split", 3)])
def test_encoding_one_row_that_gave_none_or_several_is_an_error(tokenizer, strategy, count):
    length = Template(tokenizer=tokenizer).encode(ROW)["length"]
    template = Template(tokenizer=tokenizer, max_length=-(-length // 3), truncation_strategy=strategy)
    with pytest.raises(DataError, match=f"gave {count} features"):
        template.encode(ROW)


def test_without_a_limit_nothing_is_cut(tokenizer):
    long = {"messages": [{"role": "user", "content": "a b " * 9000}]}
    assert Template(tokenizer=tokenizer, max_length=None).encode(long)["length"] > 9000


def test_a_cut_row_may_be_left_without_labels(tokenizer):
    cut = Template(tokenizer=tokenizer, max_length=4, truncation_strategy="right").encode(ROW)
    assert set(cut["labels"].tolist()) == {-100}
