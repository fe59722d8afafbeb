"""The schedules are Transformers' formulas."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

from twinkle.errors import ConfigError
from twinkle_plugin_transformers.schedulers import CosineWarmupScheduler, LinearWarmupScheduler

PAIRS = [(CosineWarmupScheduler, get_cosine_schedule_with_warmup), (LinearWarmupScheduler, get_linear_schedule_with_warmup)]


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)


def rates(scheduler, steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        found.append(scheduler.get_last_lr()[0])
        scheduler.optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
@settings(max_examples=30, deadline=None)
@given(warmup=st.integers(0, 12), total=st.integers(1, 20))
def test_rates_are_those_of_transformers(ours, theirs, warmup, total):
    first, second = optimizer(), optimizer()
    found = rates(ours(first, num_warmup_steps=warmup, num_training_steps=total), total)
    assert found == pytest.approx(rates(theirs(second, warmup, total), total), abs=1e-12)


@pytest.mark.parametrize("cls", [CosineWarmupScheduler, LinearWarmupScheduler])
def test_the_rate_ends_at_its_minimum_and_stays(cls):
    found = rates(cls(optimizer(), num_warmup_steps=2, num_training_steps=6, min_lr_ratio=0.1), 10)
    assert found[0] == 0
    assert max(found) == found[2] == 0.5
    assert found[6:] == pytest.approx([0.05] * 4)


@pytest.mark.parametrize("cls", [CosineWarmupScheduler, LinearWarmupScheduler])
def test_state_is_plain_data_and_continues(cls):
    straight = cls(optimizer(), num_warmup_steps=2, num_training_steps=9)
    rates(straight, 4)
    resumed = cls(optimizer(), num_warmup_steps=2, num_training_steps=9)
    resumed.load_state_dict(json.loads(json.dumps(straight.state_dict())))
    resumed.optimizer.param_groups[0]["lr"] = straight.optimizer.param_groups[0]["lr"]
    assert rates(resumed, 5) == rates(straight, 5)


@pytest.mark.parametrize("options", [{"num_training_steps": 0}, {"num_warmup_steps": -1}, {"min_lr_ratio": 2.0}], ids=str)
def test_numbers_out_of_range_are_refused(options):
    with pytest.raises(ConfigError):
        CosineWarmupScheduler(optimizer(), **{"num_training_steps": 5, **options})
