"""The labelled-only head gives what full logits give."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from twinkle_plugin_transformers import head as head_module
from twinkle_plugin_transformers.head import Needs, score_labels, scores_of_logits

EVERYTHING = Needs(logps=True, mean_logps=True, entropies=True, correct=True)
NAMES = ("logps", "mean_logps", "entropies")


def problem(n: int, vocabulary: int, *, bias: bool, frozen: bool, seed: int = 0):
    torch.manual_seed(seed)
    head = nn.Linear(8, vocabulary, bias=bias)
    with torch.no_grad():
        head.weight.mul_(8)
    head.requires_grad_(not frozen)
    hidden = torch.randn(n, 8, requires_grad=True)
    return head, hidden, torch.randint(0, vocabulary, (n,))


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 70),
    vocabulary=st.integers(2, 40),
    bias=st.booleans(),
    frozen=st.booleans(),
    kept=st.booleans(),
    seed=st.integers(0, 99),
)
def test_scores_and_gradients_equal_those_of_full_logits(n, vocabulary, bias, frozen, kept, seed):
    head, hidden, labels = problem(n, vocabulary, bias=bias, frozen=frozen, seed=seed)
    inputs = [hidden] if frozen else [hidden, *head.parameters()]
    weights = torch.randn(3, n)

    def slope(scores):
        total = sum((row * getattr(scores, name)).sum() for row, name in zip(weights, NAMES, strict=True))
        return torch.autograd.grad(total, inputs)

    with pytest.MonkeyPatch.context() as patch:
        if not kept:
            patch.setattr(head_module, "KEPT_BYTES", 0)
            patch.setattr(head_module, "CHUNK_BYTES", 4 * vocabulary * 16)
        ours = score_labels(hidden, labels, head, EVERYTHING)
        ours_slope = slope(ours)
    theirs = scores_of_logits(head(hidden), labels, EVERYTHING)
    for name in NAMES:
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), rtol=1e-5, atol=2e-5)
    assert torch.equal(ours.correct, theirs.correct)
    for mine, other in zip(ours_slope, slope(theirs), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)


def test_chunks_change_nothing(monkeypatch):
    head, hidden, labels = problem(100, 16, bias=True, frozen=True)
    whole = score_labels(hidden, labels, head, EVERYTHING)
    monkeypatch.setattr(head_module, "CHUNK_BYTES", 4 * 16 * 40)
    chunked = score_labels(hidden, labels, head, EVERYTHING)
    for name in (*NAMES, "correct"):
        torch.testing.assert_close(getattr(chunked, name), getattr(whole, name))


def test_large_logits_do_not_overflow():
    head, hidden, labels = problem(5, 9, bias=False, frozen=True)
    with torch.no_grad():
        head.weight.mul_(1000)
    ours, theirs = score_labels(hidden, labels, head, EVERYTHING), torch.log_softmax(head(hidden).double(), -1)
    torch.testing.assert_close(ours.logps.double(), theirs.gather(1, labels[:, None])[:, 0], rtol=1e-5, atol=1e-3)
    assert torch.isfinite(ours.entropies).all()


def test_scores_that_nobody_differentiates_cost_no_jacobian():
    head, hidden, labels = problem(6, 9, bias=False, frozen=True)
    scores = score_labels(hidden, labels, head, EVERYTHING, graded=Needs(logps=True))
    assert scores.logps.requires_grad
    assert not scores.entropies.requires_grad
    assert not scores.mean_logps.requires_grad


@pytest.mark.parametrize("frozen", [True, False])
def test_no_labels_give_no_scores_and_a_zero_gradient(frozen):
    head, hidden, labels = problem(0, 9, bias=False, frozen=frozen)
    scores = score_labels(hidden, labels, head, EVERYTHING)
    assert scores.logps.shape == (0,)
    scores.logps.sum().backward()
    assert hidden.grad.shape == (0, 8)
