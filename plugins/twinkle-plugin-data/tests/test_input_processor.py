"""InputProcessor: rows to tensors, padded or packed; labels shifted inside each row; laws that hold for any rows."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from twinkle.data_format import IGNORE_INDEX
from twinkle.errors import ConfigError, DataError
from twinkle_plugin_data.processor import InputProcessor


def row(*ids, **more):
    return {"input_ids": list(ids), "labels": list(ids), **more}


def lists(batch):
    return {name: tensor.tolist() for name, tensor in batch.items()}


# -- padded


def test_shorter_rows_are_padded_and_masked_on_the_right():
    assert lists(InputProcessor(pad_token_id=9)([row(1, 2, 3), row(4)])) == {
        "input_ids": [[1, 2, 3], [4, 9, 9]],
        "labels": [[2, 3, -100], [-100, -100, -100]],
        "attention_mask": [[1, 1, 1], [1, 0, 0]],
    }


def test_padding_on_the_left_moves_no_position():
    assert lists(InputProcessor(padding_side="left")([row(1, 2, 3), row(4, 5)])) == {
        "input_ids": [[1, 2, 3], [0, 4, 5]],
        "labels": [[2, 3, -100], [-100, 5, -100]],
        "attention_mask": [[1, 1, 1], [0, 1, 1]],
        "position_ids": [[0, 1, 2], [0, 0, 1]],
    }


def test_the_first_token_is_never_the_last_label():
    batch = InputProcessor()([row(7, 8, 9)])
    assert batch["labels"].tolist() == [[8, 9, IGNORE_INDEX]]


def test_labels_that_are_ignored_stay_so_one_place_earlier():
    batch = InputProcessor()([{"input_ids": [1, 2, 3, 4], "labels": [-100, -100, 3, 4]}])
    assert batch["labels"].tolist() == [[-100, 3, 4, -100]]


def test_weights_are_shifted_with_the_labels():
    batch = InputProcessor()([row(1, 2, 3, loss_weights=[0.25, 0.5, 0.75]), row(4, 5, loss_weights=[1.0, 2.0])])
    assert batch["loss_weights"].tolist() == [[0.5, 0.75, 0], [2, 0, 0]]


def test_rows_without_weights_weigh_1_where_they_have_labels_beside_rows_with_some():
    batch = InputProcessor()([row(1, 2, loss_weights=[0.5, 0.5]), {"input_ids": [3, 4, 5], "labels": [-100, -100, 5]}])
    assert batch["loss_weights"].tolist() == [[0.5, 0, 0], [0, 1, 0]]


def test_rows_without_labels_are_not_trained_on_beside_rows_with_some():
    batch = InputProcessor()([row(1, 2), {"input_ids": [3, 4]}])
    assert batch["labels"].tolist() == [[2, -100], [-100, -100]]


def test_prompts_have_no_labels_at_all():
    assert lists(InputProcessor()([{"input_ids": [1, 2]}])) == {"input_ids": [[1, 2]], "attention_mask": [[1, 1]]}


def test_the_length_can_be_rounded_up():
    batch = InputProcessor(pad_to_multiple_of=8)([row(*range(9)), row(1)])
    assert batch["input_ids"].shape == batch["labels"].shape == (2, 16)


def test_tensors_have_the_types_that_a_batch_promises():
    batch = InputProcessor()([{name: np.ones(3, np.int32) for name in ("input_ids", "labels")} | {"loss_weights": np.ones(3)}])
    assert {name: tensor.dtype for name, tensor in batch.items()} == {
        "input_ids": torch.int64,
        "labels": torch.int64,
        "loss_weights": torch.float32,
        "attention_mask": torch.int64,
    }


def test_tokens_that_a_row_hides_count_as_padding():
    hidden = {"input_ids": [0, 0, 1, 2], "labels": [-100, -100, 1, 2], "attention_mask": [0, 0, 1, 1]}
    assert lists(InputProcessor()([hidden])) == lists(InputProcessor()([row(1, 2)]))


def test_further_fields_for_each_token_are_padded_and_not_shifted():
    batch = InputProcessor(token_fields=["old_logps"])([row(1, 2, old_logps=[-0.5, -1]), row(3, old_logps=[-2])])
    assert batch["old_logps"].tolist() == [[-0.5, -1], [-2, 0]]


def test_fields_without_a_place_for_each_token_can_be_joined():
    images = [np.ones((2, 3), np.float32), np.zeros((1, 3), np.float32)]
    batch = InputProcessor(concat_fields=["pixel_values"])([row(1, pixel_values=image) for image in images])
    assert batch["pixel_values"].shape == (3, 3)


def test_what_a_model_does_not_take_stays_out():
    assert set(InputProcessor()([row(1, 2, user_data={"a": 1}, length=2, source="web")])) == {
        "input_ids",
        "labels",
        "attention_mask",
    }


def test_tensors_go_to_the_device():
    assert InputProcessor(device="meta")([row(1, 2)])["input_ids"].device.type == "meta"


def test_rows_stay_as_they_were():
    mine = [row(1, 2, 3), {"input_ids": np.array([4]), "labels": np.array([4])}]
    InputProcessor(padding_free=True)(mine)
    assert mine[0] == row(1, 2, 3)
    assert mine[1]["labels"].tolist() == [4]
    assert set(mine[1]) == {"input_ids", "labels"}


# -- packed


def test_packed_rows_restart_positions_and_have_no_mask():
    assert lists(InputProcessor(padding_free=True)([row(1, 2, 3), row(4, 5)])) == {
        "input_ids": [[1, 2, 3, 4, 5]],
        "labels": [[2, 3, -100, 5, -100]],
        "position_ids": [[0, 1, 2, 0, 1]],
    }


def test_a_packed_batch_is_filled_up_with_a_sequence_of_its_own():
    batch = InputProcessor(padding_free=True, pad_to_multiple_of=4, pad_token_id=9)([row(1, 2, 3), row(4, 5)])
    assert lists(batch) == {
        "input_ids": [[1, 2, 3, 4, 5, 9, 9, 9]],
        "labels": [[2, 3, -100, 5, -100, -100, -100, -100]],
        "position_ids": [[0, 1, 2, 0, 1, 0, 1, 2]],
    }


@pytest.mark.parametrize("padding_free", [False, True])
def test_a_row_that_is_several_sequences_shifts_no_label_from_one_to_the_other(padding_free):
    packed = row(1, 2, 3, 4, position_ids=[0, 1, 0, 1])
    assert InputProcessor(padding_free=padding_free)([packed])["labels"].tolist() == [[2, -100, 4, -100]]


# -- what else is taken


def test_one_row_by_itself_is_a_batch_of_one():
    assert lists(InputProcessor()(row(1, 2))) == lists(InputProcessor()([row(1, 2)]))


@pytest.mark.parametrize("kind", [torch.tensor, np.array, list], ids=["tensor", "array", "list"])
def test_a_batch_that_is_collated_already_only_becomes_tensors(kind):
    batch = InputProcessor()({"input_ids": kind([[1, 2], [3, 4]]), "labels": kind([[2, -100], [4, -100]])})
    assert lists(batch) == {"input_ids": [[1, 2], [3, 4]], "labels": [[2, -100], [4, -100]]}


def test_collating_twice_changes_nothing():
    once = InputProcessor()([row(1, 2, 3), row(4)])
    assert lists(InputProcessor()(once)) == lists(once)


# -- errors


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no rows to collate"),
        ([row(1), {"messages": []}], "Row 1 of the batch has no 'input_ids'. Its fields: messages. Was it encoded?"),
        (
            [row(1), row(1, 2, loss_weights=[1.0])],
            r"Row 1 of the batch: 'loss_weights' has shape \[1\], but 'input_ids' has 2 tokens",
        ),
        ([row(1), row()], "Row 1 of the batch has no tokens"),
        ([{"input_ids": [[1, 2], [3, 4]]}], r"Row 0 of the batch: 'input_ids' has shape \[2, 2\]"),
        ([row(1, old_logps=[0.5]), row(2)], "Row 1 of the batch has no 'old_logps', which other rows have"),
        ([row(1), row(2, pixel_values=[[1]])], "Row 0 of the batch has no 'pixel_values', which other rows have"),
        ({"labels": [[1]]}, "The batch has no 'input_ids'. Its fields: labels"),
        ({"input_ids": [[1, 2], [3]]}, "rows of different lengths; give a list of rows"),
        ({"input_ids": [[[1]]]}, "has 3 dimensions"),
    ],
)
def test_errors_name_the_row_and_the_field(rows, message):
    with pytest.raises(DataError, match=message):
        InputProcessor(token_fields=["old_logps"], concat_fields=["pixel_values"])(rows)


@pytest.mark.parametrize(("option", "value"), [("padding_side", "up"), ("pad_to_multiple_of", 0)])
def test_options_that_do_not_fit_are_errors(option, value):
    with pytest.raises(ConfigError, match=option):
        InputProcessor(**{option: value})


# -- laws

features = st.lists(
    st.lists(st.tuples(st.integers(1, 500), st.booleans(), st.floats(0, 4, width=32)), min_size=1, max_size=12).map(
        lambda tokens: {
            "input_ids": np.array([token for token, _, _ in tokens], np.int32),
            "labels": np.array([token if trained else IGNORE_INDEX for token, trained, _ in tokens], np.int32),
            "loss_weights": np.array([weight for _, _, weight in tokens], np.float32),
        }
    ),
    min_size=1,
    max_size=6,
)
processors = st.builds(
    InputProcessor,
    padding_side=st.sampled_from(["right", "left"]),
    padding_free=st.booleans(),
    pad_to_multiple_of=st.sampled_from([None, 1, 4, 7]),
)


def uncollated(batch, lengths):
    """The rows of a batch, with labels and weights where they were but for the first token's, which nothing predicts."""
    if "attention_mask" in batch:
        places = [(number, mask.nonzero().flatten()) for number, mask in enumerate(batch["attention_mask"])]
    else:
        starts = np.cumsum([0, *lengths])
        places = [(0, torch.arange(start, end)) for start, end in itertools.pairwise(starts)]
    return [{name: batch[name][number, place].numpy() for name in batch} for number, place in places]


@given(features, processors)
@settings(deadline=None)
def test_collating_and_taking_apart_again_gives_the_rows(rows, processor):
    parts = uncollated(processor(rows), [len(each["input_ids"]) for each in rows])
    for mine, part in zip(rows, parts, strict=True):
        np.testing.assert_array_equal(part["input_ids"], mine["input_ids"])
        np.testing.assert_array_equal(part["labels"], [*mine["labels"][1:], IGNORE_INDEX])
        np.testing.assert_array_equal(part["loss_weights"], [*mine["loss_weights"][1:], 0])
        if "position_ids" in part:
            np.testing.assert_array_equal(part["position_ids"], np.arange(len(mine["input_ids"])))


@given(features, processors)
@settings(deadline=None)
def test_a_row_comes_out_the_same_whatever_it_is_collated_with(rows, processor):
    together = uncollated(processor(rows), [len(each["input_ids"]) for each in rows])
    for mine, part in zip(rows, together, strict=True):
        (alone,) = uncollated(processor([mine]), [len(mine["input_ids"])])
        assert alone.keys() == part.keys()
        assert all(np.array_equal(alone[name], part[name]) for name in part)


@given(features, processors)
@settings(deadline=None)
def test_padding_adds_no_label_and_no_weight(rows, processor):
    batch = processor(rows)
    assert (batch["labels"] != IGNORE_INDEX).sum() == sum((each["labels"][1:] != IGNORE_INDEX).sum() for each in rows)
    np.testing.assert_allclose(batch["loss_weights"].sum(), sum(each["loss_weights"][1:].sum() for each in rows), rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_tensors_that_a_model_gave_are_taken_by_their_numbers(dtype):
    logps = torch.tensor([-0.5, -1.5], dtype=dtype, requires_grad=True)
    batch = InputProcessor(token_fields=["old_logps"])([{"input_ids": torch.tensor([1, 2]), "old_logps": logps}])
    assert batch["old_logps"].tolist() == [[-0.5, -1.5]]
    assert (batch["old_logps"].dtype, batch["old_logps"].requires_grad) == (torch.float32, False)
