"""The train metric: progress and speed as numbers, timed by a clock that the test turns."""

import json
import pickle

import pytest
import torch

from twinkle.metric import Measurement
from twinkle_plugin_metrics.train import TrainMetric


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += seconds


@pytest.fixture
def clock():
    return Clock()


PADDED = {"input_ids": torch.zeros(3, 4), "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]])}  # 7 tokens
PACKED = {"input_ids": torch.zeros(1, 6), "position_ids": torch.tensor([[0, 1, 2, 0, 1, 0]])}  # 3 sequences


def test_shows_the_last_optimizer_step(clock):
    metric = TrainMetric(clock=clock)
    metric.accumulate(None, None, step=7, lr=1e-4, grad_norm=torch.tensor(0.5))
    metric.accumulate(None, None, step=8, lr=2e-4, grad_norm=torch.tensor(0.25))
    assert metric.calculate() == {"step": 8, "lr": 2e-4, "grad_norm": 0.25, "elapsed": 0}


def test_every_value_is_a_number_with_a_unit_and_prints_for_people(clock):
    metric = TrainMetric(clock=clock)
    metric.accumulate(PADDED, {})
    clock.advance(12)
    metric.accumulate({"input_ids": torch.zeros(6, 40_000)}, {})
    metric.accumulate(None, None, step=20, lr=1e-4, grad_norm=1.5)
    found = metric.calculate()
    assert all(isinstance(value, Measurement) for value in found.values())
    assert {name: value.unit for name, value in found.items()} == {
        "step": "",
        "lr": "",
        "grad_norm": "",
        "elapsed": "s",
        "tokens_per_second": "tokens/s",
        "samples_per_second": "samples/s",
    }
    expected = "step 20, lr 0.0001, grad_norm 1.5, elapsed 12 s, tokens_per_second 20 ktokens/s, samples_per_second 0.5 samples/s"
    assert str(found) == expected


def test_speed_leaves_out_the_first_micro_batch_and_what_came_before(clock):
    metric = TrainMetric(clock=clock)
    clock.advance(60)  # loading a model
    metric.accumulate(PADDED, {})
    assert set(metric.calculate()) == {"elapsed"}
    clock.advance(2)
    metric.accumulate(PADDED, {})
    found = metric.calculate()
    assert found["tokens_per_second"] == 7 / 2
    assert found["samples_per_second"] == 3 / 2
    assert found["elapsed"] == 62


def test_packed_rows_count_their_sequences(clock):
    metric = TrainMetric(clock=clock)
    metric.accumulate(PACKED, {})
    clock.advance(1)
    metric.accumulate(PACKED, {})
    found = metric.calculate()
    assert (found["tokens_per_second"], found["samples_per_second"]) == (6, 3)


def test_speed_is_over_all_ranks_and_the_slowest_ones_time(clock):
    metric = TrainMetric(clock=clock, gather=lambda state: [state, state | {"seconds": 4.0, "tokens": 13.0}])
    metric.accumulate(PADDED, {})
    clock.advance(2)
    metric.accumulate(PADDED, {})
    assert metric.calculate()["tokens_per_second"] == (7 + 13) / 4


def test_a_clock_that_stands_still_gives_no_speed(clock):
    metric = TrainMetric(clock=clock)
    metric.accumulate(PADDED, {})
    metric.accumulate(PADDED, {})
    assert set(metric.calculate()) == {"elapsed"}


def test_parameter_groups_of_one_rate_show_one(clock):
    metric = TrainMetric(clock=clock)
    metric.accumulate(None, None, step=0, lr=[1e-3, 1e-3])
    assert metric.calculate()["lr"] == 1e-3


def test_parameter_groups_of_different_rates_show_each(clock):
    metric = TrainMetric(clock=clock)
    metric.accumulate(None, None, step=0, lr=[1e-3, 1e-4])
    found = metric.calculate()
    assert (found["lr_0"], found["lr_1"]) == (1e-3, 1e-4)
    assert "lr" not in found


def test_reset_starts_speeds_anew_and_keeps_the_time_of_the_run(clock):
    metric = TrainMetric(clock=clock)
    metric.accumulate(PADDED, {}, step=0, lr=0.1, grad_norm=1.0)
    clock.advance(5)
    metric.accumulate(PADDED, {})
    metric.reset()
    assert metric.calculate() == {"elapsed": 5}
    clock.advance(1)
    metric.accumulate(PADDED, {})
    found = metric.calculate()
    assert found["tokens_per_second"] == 7
    assert found["elapsed"] == 6


def test_the_state_is_plain_data(clock):
    metric = TrainMetric(clock=clock)
    metric.accumulate(PADDED, {}, step=0, lr=0.1, grad_norm=torch.tensor(1.0))
    metric.accumulate(PADDED, {})
    state = metric.state()
    assert json.loads(json.dumps(state)) == pickle.loads(pickle.dumps(state)) == state


def test_measures_real_time_by_itself():
    metric = TrainMetric()
    metric.accumulate(PADDED, {})
    metric.accumulate(PADDED, {})
    found = metric.calculate()
    assert found["elapsed"] > 0
    assert found["tokens_per_second"] > 0
