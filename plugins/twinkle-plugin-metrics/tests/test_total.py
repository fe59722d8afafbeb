"""Sums of numbers that may still be on a device."""

import pickle

import pytest
import torch

from twinkle_plugin_metrics.total import WAITING, Total


def test_adds_numbers_and_tensors_of_any_kind():
    total = Total()
    for value in (1, 0.5, True, torch.tensor(2.0), torch.tensor([3], dtype=torch.int64), torch.tensor(4, dtype=torch.bfloat16)):
        total.add(value)
    assert total.value() == 11.5


def test_adds_in_float64():
    total = Total()
    for _ in range(1000):
        total.add(torch.tensor(2.0**25))  # float32 can't tell 2**25 from 2**25 + 1
        total.add(torch.tensor(1.0))
    assert total.value() == 1000 * (2**25 + 1)


def test_keeps_no_graph_and_few_tensors():
    total = Total()
    weight = torch.ones((), requires_grad=True)
    for _ in range(3 * WAITING - 1):
        total.add(weight * 1)
    waiting = total._waiting
    assert len(waiting) < WAITING
    assert not any(tensor.requires_grad for tensor in waiting)
    assert total.value() == 3 * WAITING - 1


def test_a_sum_pickles_at_any_time():
    total = Total()
    total.add(torch.tensor(2.0))
    assert pickle.loads(pickle.dumps(total)).value() == 2


def test_more_than_one_element_is_no_number():
    total = Total()
    total.add(torch.zeros(2))
    with pytest.raises(RuntimeError, match="shape"):
        total.value()
