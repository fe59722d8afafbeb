"""From hidden states to log-probabilities of labels, without keeping logits.

Works on labelled positions only, some rows at a time, so the largest tensor is ``[chunk, V]``. Where the head is frozen (LoRA)
the Jacobian of each log-probability with respect to its hidden state is made while the logits are at hand:
``d logp / d h = W[y] - softmax(h W^T) W``; the backward pass of *any* loss over log-probabilities is then one product, with nothing
recomputed. Knows nothing of models, batches or losses.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from twinkle.errors import ConfigError

CHUNK_BYTES = 16 << 20
"""Float32 logits that are made at a time: few enough to stay near the cache, and 64 rows already run at the full speed of a
matrix product (measured on CPU: 8 to 32 MiB are alike, 1 MiB and 256 MiB slower)."""

KEPT_BYTES = 512 << 20
"""With a trainable head, logits up to this size are kept for the backward pass; beyond, they are recomputed by chunk."""


@dataclass(frozen=True)
class Needs:
    """Which outputs somebody asked for (the names of ``ModelOutput``)."""

    logits: bool = False
    logps: bool = False
    mean_logps: bool = False
    entropies: bool = False
    correct: bool = False

    @classmethod
    def of(cls, outputs: Collection[str]) -> Needs:
        """The needs of whoever asks for these outputs by name.

        Raises:
            ConfigError: there is no output of such a name, or none was named.
        """
        known = list(cls.__dataclass_fields__)
        unknown = [name for name in outputs if name not in known]
        if unknown or not outputs:
            raise ConfigError(f"A forward pass gives {', '.join(known)}; not {', '.join(unknown) or 'nothing'}.")
        return cls(**dict.fromkeys(outputs, True))

    def __or__(self, other: Needs) -> Needs:
        return Needs(**{name: getattr(self, name) or getattr(other, name) for name in self.__dataclass_fields__})

    def names(self) -> list[str]:
        """What is asked for, by name."""
        return [name for name in self.__dataclass_fields__ if getattr(self, name)]

    @property
    def per_label(self) -> bool:
        """Whether anything is asked for that needs the head at labelled positions."""
        return self.logps or self.mean_logps or self.entropies or self.correct


@dataclass
class LabelScores:
    """What the head says about ``n`` labelled positions; each ``[n]`` float32 (``correct`` bool), None where not asked for."""

    logps: Tensor
    mean_logps: Tensor | None = None
    entropies: Tensor | None = None
    correct: Tensor | None = None


def score_labels(hidden: Tensor, labels: Tensor, head: nn.Module, needs: Needs, graded: Needs | None = None) -> LabelScores:
    """Score ``labels [n]`` int64 at ``hidden [n, d]`` under ``head``, a module from ``[*, d]`` to ``[*, V]``.

    ``graded`` says which of the scores a gradient may be asked of (all, where it is None); others cost no Jacobian.
    """
    if hidden.shape[0] == 0:
        return _empty(hidden, needs)
    if is_frozen_linear(head):
        return LabelScores(*_FrozenHead.apply(hidden, head.weight, head.bias, labels, needs, needs if graded is None else graded))
    return _trainable_head(hidden, labels, head, needs)


def is_frozen_linear(head: nn.Module) -> bool:
    """Whether ``head`` is exactly ``nn.Linear`` with nothing to train in it, and no hooks that would be passed over."""
    hooks = (head._forward_hooks, head._forward_pre_hooks, head._backward_hooks, head._backward_pre_hooks)
    return type(head) is nn.Linear and not any(hooks) and not any(parameter.requires_grad for parameter in head.parameters())


def scores_of_logits(logits: Tensor, labels: Tensor, needs: Needs) -> LabelScores:
    """The same from ``logits [n, V]``, differentiably, for models that only give logits."""
    log_probs = functional.log_softmax(logits.float(), dim=-1)
    logps = log_probs.gather(-1, labels[:, None])[:, 0]
    return LabelScores(
        logps,
        log_probs.mean(-1) if needs.mean_logps else None,
        -(log_probs.exp() * log_probs).sum(-1) if needs.entropies else None,
        (logps.detach() >= log_probs.detach().amax(-1)) if needs.correct else None,
    )


def _empty(hidden: Tensor, needs: Needs) -> LabelScores:
    nothing = hidden.sum(-1).float()  # shape [0], and still part of the graph
    return LabelScores(
        nothing,
        nothing if needs.mean_logps else None,
        nothing if needs.entropies else None,
        nothing.bool() if needs.correct else None,
    )


def _chunk_rows(vocabulary: int) -> int:
    return max(32, CHUNK_BYTES // (4 * vocabulary))


class _FrozenHead(torch.autograd.Function):
    """Scores with their Jacobians ``[n, d]``; see the module's docstring."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, needs: Needs, graded: Needs
    ) -> tuple[Tensor | None, ...]:
        n = hidden.shape[0]
        hidden = hidden.to(weight.dtype)
        names = [name for name in _SCORES if name == "logps" or getattr(needs, name)]
        scores = {name: torch.empty(n, dtype=torch.float32, device=hidden.device) for name in names}
        with_slope = [name for name in names if ctx.needs_input_grad[0] and (name == "logps" or getattr(graded, name))]
        jacobians = {name: torch.empty_like(hidden) for name in with_slope}
        correct = torch.empty(n, dtype=torch.bool, device=hidden.device) if needs.correct else None
        mean_weight = weight.mean(0) if "mean_logps" in jacobians else None
        chunk = _chunk_rows(weight.shape[0])
        for start in range(0, n, chunk):
            rows = slice(start, min(n, start + chunk))
            logits = torch.mm(hidden[rows], weight.t()).float()
            if bias is not None:
                logits += bias
            part = _softmax_parts(logits, labels[rows], needs)
            for name in names:
                scores[name][rows] = getattr(part, name)
            if correct is not None and part.correct is not None:
                correct[rows] = part.correct
            if jacobians:
                _write_jacobians(jacobians, rows, part, labels[rows], weight, mean_weight)
        ctx.save_for_backward(*jacobians.values())
        ctx.names = with_slope
        flat = [score for name, score in scores.items() if name not in with_slope]
        ctx.mark_non_differentiable(*flat, *([] if correct is None else [correct]))
        return *(scores.get(name) for name in _SCORES), correct

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        by_name = dict(zip(_SCORES, grads, strict=False))
        total: Tensor | None = None
        for name, jacobian in zip(ctx.names, ctx.saved_tensors, strict=True):
            grad = by_name[name]
            if grad is not None:
                part = jacobian * grad[:, None].to(jacobian.dtype)
                total = part if total is None else total.add_(part)
        return total, None, None, None, None, None


_SCORES = ("logps", "mean_logps", "entropies")


@dataclass
class _SoftmaxParts:
    """One chunk's scores, and what its Jacobians are made from: ``exps / total`` is the softmax."""

    exps: Tensor  # [c, V]
    total: Tensor  # [c, 1]
    logps: Tensor  # [c]
    mean_logps: Tensor | None
    entropies: Tensor | None
    correct: Tensor | None
    entropy_slopes: Tensor | None  # [c, V]: d entropy / d logits


def _softmax_parts(logits: Tensor, labels: Tensor, needs: Needs) -> _SoftmaxParts:
    """One pass over ``logits [c, V]``, which are overwritten, where only log-probabilities are asked for."""
    peak = logits.amax(-1, keepdim=True)
    label_logit = logits.gather(1, labels[:, None])
    shifted = logits.sub_(peak)
    mean = shifted.mean(-1) if needs.mean_logps else None
    exps = shifted.exp() if needs.entropies else shifted.exp_()
    total = exps.sum(-1, keepdim=True)
    log_total = total.log()
    entropies, slopes = None, None
    if needs.entropies:
        entropies = log_total - (exps * shifted).sum(-1, keepdim=True) / total
        slopes = shifted.sub_(log_total).add_(entropies).mul_(exps).div_(total).neg_()
    return _SoftmaxParts(
        exps,
        total,
        (label_logit - peak - log_total)[:, 0],
        None if mean is None else mean - log_total[:, 0],
        None if entropies is None else entropies[:, 0],
        (label_logit >= peak)[:, 0] if needs.correct else None,
        slopes,
    )


def _write_jacobians(
    jacobians: dict[str, Tensor], rows: slice, part: _SoftmaxParts, labels: Tensor, weight: Tensor, mean_weight: Tensor | None
) -> None:
    expected = torch.mm(part.exps.to(weight.dtype), weight).div_(part.total.to(weight.dtype))
    torch.sub(weight.index_select(0, labels), expected, out=jacobians["logps"][rows])
    if mean_weight is not None:
        torch.sub(mean_weight, expected, out=jacobians["mean_logps"][rows])
    if "entropies" in jacobians and part.entropy_slopes is not None:
        torch.mm(part.entropy_slopes.to(weight.dtype), weight, out=jacobians["entropies"][rows])


def _trainable_head(hidden: Tensor, labels: Tensor, head: nn.Module, needs: Needs) -> LabelScores:
    """By plain differentiation: all at once while the logits are small, else in chunks that are recomputed in the backward pass."""
    vocabulary = _output_size(head)
    n = hidden.shape[0]
    if not torch.is_grad_enabled() or 4 * n * vocabulary > KEPT_BYTES:
        chunk = _chunk_rows(vocabulary)
    else:
        chunk = n
    parts = []
    for start in range(0, n, chunk):
        piece, y = hidden[start : start + chunk], labels[start : start + chunk]
        if chunk < n and torch.is_grad_enabled():
            parts.append(checkpoint(_score_by_module, piece, y, head, needs, use_reentrant=False))
        else:
            parts.append(_score_by_module(piece, y, head, needs))
    logps, mean_logps, entropies, correct = (
        None if column[0] is None else torch.cat(column) for column in zip(*parts, strict=True)
    )
    assert logps is not None
    return LabelScores(logps, mean_logps, entropies, correct)


def _score_by_module(hidden: Tensor, labels: Tensor, head: nn.Module, needs: Needs) -> tuple[Tensor | None, ...]:
    scores = scores_of_logits(head(hidden), labels, needs)
    return scores.logps, scores.mean_logps, scores.entropies, scores.correct


def _output_size(head: nn.Module) -> int:
    """The vocabulary of a head: its own ``out_features``, or that of the layer that it wraps."""
    size = getattr(head, "out_features", None)
    if not isinstance(size, int):
        raise TypeError(f"A {type(head).__name__} is no output head: it has no out_features.")
    return size
