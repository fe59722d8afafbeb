"""Accuracy: over trained tokens, from what the model gives, the same over shards as over everything."""

import json
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from twinkle_plugin_metrics.accuracy import Accuracy

LABELS = torch.tensor([[1, 2, -100], [0, -100, 3]])
CORRECT = torch.tensor([[True, False, True], [True, True, True]])


def measured(inputs, outputs):
    metric = Accuracy()
    metric.accumulate(inputs, outputs)
    return metric.calculate()


def test_counts_labelled_tokens_only():
    assert measured({"labels": LABELS}, {"correct": CORRECT})["accuracy"] == 3 / 4


def test_a_token_of_weight_zero_doesnt_count():
    weights = torch.tensor([[1.0, 0.0, 1.0], [-0.5, 1.0, 1.0]])
    assert measured({"labels": LABELS, "loss_weights": weights}, {"correct": CORRECT})["accuracy"] == 1


def test_reads_logits_where_a_model_gives_only_those():
    likeliest = torch.tensor([[1, 0, 0], [0, 0, 3]])
    logits = torch.nn.functional.one_hot(likeliest, 5).float().requires_grad_()
    assert measured({"labels": LABELS}, {"logits": logits})["accuracy"] == 3 / 4


def test_it_is_a_fraction_that_prints_in_percent():
    found = measured({"labels": LABELS}, {"correct": CORRECT})
    assert found["accuracy"].unit == "%"
    assert str(found) == "accuracy 75.0 %"


def test_asks_the_model_for_what_it_needs():
    assert Accuracy.require_correct
    assert not Accuracy.require_logits


def test_no_labels_no_number():
    assert measured({"labels": torch.full((1, 2), -100)}, {"correct": torch.zeros(1, 2, dtype=torch.bool)}) == {}
    assert measured({"input_ids": torch.zeros(1, 2)}, {}) == {}
    assert Accuracy().calculate() == {}


def test_an_optimizer_step_counts_nothing():
    assert measured(None, None) == {}


def test_missing_outputs_are_named():
    with pytest.raises(ValueError, match=r"needs 'correct' \(or 'logits'\).*hold: logps"):
        measured({"labels": LABELS}, {"logps": torch.zeros(2, 3)})


def test_outputs_that_dont_align_are_refused():
    with pytest.raises(ValueError, match=r"'correct' has the shape \[2, 2\], labels have \[2, 3\]"):
        measured({"labels": LABELS}, {"correct": CORRECT[:, 1:]})


@given(
    st.lists(st.tuples(st.lists(st.booleans(), min_size=1, max_size=5), st.booleans()), max_size=6),
    st.integers(1, 3),
)
def test_the_result_over_shards_is_that_over_everything(rows, ranks):
    whole, shards = Accuracy(), [Accuracy() for _ in range(ranks)]
    for index, (correct, labelled) in enumerate(rows):
        row = torch.tensor([correct])
        inputs = {"labels": torch.full(row.shape, 1 if labelled else -100)}
        for metric in (whole, shards[index % ranks]):
            metric.accumulate(inputs, {"correct": row})
    assert whole.compute([shard.state() for shard in shards]) == whole.calculate()


def test_gathers_every_ranks_state():
    metric = Accuracy(gather=lambda state: [state, {"correct": 1.0, "tokens": 4.0}])
    metric.accumulate({"labels": LABELS}, {"correct": CORRECT})
    assert metric.calculate()["accuracy"] == 4 / 8


def test_reset_forgets():
    metric = Accuracy()
    metric.accumulate({"labels": LABELS}, {"correct": CORRECT})
    metric.reset()
    assert metric.calculate() == {}


def test_the_state_is_plain_data():
    metric = Accuracy()
    metric.accumulate({"labels": LABELS}, {"correct": CORRECT})
    state = metric.state()
    assert json.loads(json.dumps(state)) == pickle.loads(pickle.dumps(state)) == state == {"correct": 3, "tokens": 4}
