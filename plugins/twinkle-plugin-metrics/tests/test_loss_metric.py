"""The loss metric: weighted by tokens, the same over shards as over everything."""

import json
import math
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from twinkle_plugin_metrics.loss import LossMetric

amounts = st.floats(-1e4, 1e4, allow_subnormal=False)
outputs = st.builds(
    lambda loss, tokens, nll: {"loss": loss, "num_tokens": tokens, "metrics": {"nll": nll, "nll_tokens": tokens}},
    amounts,
    st.integers(0, 1000),
    st.floats(0, 1000),
)


def measured(*rows):
    metric = LossMetric()
    for row in rows:
        metric.accumulate(None, None, loss_output=row)
    return metric.calculate()


def test_a_micro_batch_with_more_tokens_counts_for_more():
    found = measured({"loss": torch.tensor(6.0), "num_tokens": torch.tensor(3.0)}, {"loss": torch.tensor(1.0), "num_tokens": 1})
    assert found["loss"] == 7 / 4


def test_the_loss_is_a_number_in_nats_that_prints_for_people():
    found = measured({"loss": 2.0, "num_tokens": 3})
    assert found["loss"].unit == "nats"
    assert str(found) == "loss 0.6667 nats"
    assert json.loads(json.dumps(found)) == {"loss": 2 / 3}


def test_perplexity_comes_from_the_plain_likelihood_and_not_from_the_loss():
    found = measured({"loss": 100.0, "num_tokens": 1, "metrics": {"nll": 4 * math.log(5), "nll_tokens": 4}})
    assert found["ppl"] == pytest.approx(5)


def test_a_loss_that_reports_no_likelihood_has_no_perplexity():
    assert set(measured({"loss": 1.0, "num_tokens": 1, "metrics": {"kl": 3.0}})) == {"loss"}


def test_an_enormous_likelihood_is_an_infinite_perplexity():
    found = measured({"loss": 1.0, "num_tokens": 1, "metrics": {"nll": 1e6, "nll_tokens": 1}})
    assert found["ppl"] == math.inf


def test_nothing_labelled_gives_no_numbers():
    assert measured() == {}
    assert measured({"loss": 0.0, "num_tokens": 0, "metrics": {"nll": 0.0, "nll_tokens": 0}}) == {}


def test_a_loss_that_isnt_normalised_is_a_sum_for_each_step():
    metric = LossMetric()
    for step in range(2):
        for _ in range(3):
            metric.accumulate(None, None, loss_output={"loss": torch.tensor(2.0), "num_tokens": None})
        metric.accumulate(None, None, step=step, lr=0.1, grad_norm=1.0)
    assert metric.calculate() == {"loss_sum": 6}


def test_a_loss_that_isnt_normalised_sums_over_ranks():
    metric = LossMetric(gather=lambda state: [state] * 4)
    metric.accumulate(None, None, loss_output={"loss": 2.0, "num_tokens": None})
    metric.accumulate(None, None, step=0)
    assert metric.calculate() == {"loss_sum": 8}


def test_evaluation_without_steps_sums_everything():
    assert measured(*[{"loss": 2.0, "num_tokens": None}] * 3) == {"loss_sum": 6}


@given(st.lists(outputs, max_size=8), st.integers(1, 4))
def test_the_result_over_shards_is_that_over_everything(rows, ranks):
    shards = []
    for rank in range(ranks):
        metric = LossMetric()
        for row in rows[rank::ranks]:
            metric.accumulate(None, None, loss_output=row)
        shards.append(metric.state())
    merged, whole = LossMetric().compute(shards), measured(*rows)
    assert merged == pytest.approx(whole, rel=1e-9, abs=1e-9)


def test_computing_changes_nothing():
    metric = LossMetric()
    metric.accumulate(None, None, loss_output={"loss": 2.0, "num_tokens": 1})
    assert metric.calculate() == metric.calculate() == {"loss": 2}


def test_reset_forgets():
    metric = LossMetric()
    metric.accumulate(None, None, loss_output={"loss": 2.0, "num_tokens": 1, "metrics": {"nll": 1.0, "nll_tokens": 1}})
    metric.accumulate(None, None, loss_output={"loss": 2.0, "num_tokens": None}, step=3)
    metric.reset()
    assert metric.calculate() == {}
    assert metric.state() == LossMetric().state()


def test_the_state_is_plain_data():
    metric = LossMetric()
    metric.accumulate(None, None, loss_output={"loss": torch.tensor(2.0, requires_grad=True), "num_tokens": torch.tensor(1)})
    state = metric.state()
    assert json.loads(json.dumps(state)) == pickle.loads(pickle.dumps(state)) == state


def test_what_others_pass_is_ignored():
    metric = LossMetric()
    metric.accumulate({"input_ids": torch.zeros(1, 2)}, {}, grad_norm=1.0, anything=object())
    assert metric.calculate() == {}
