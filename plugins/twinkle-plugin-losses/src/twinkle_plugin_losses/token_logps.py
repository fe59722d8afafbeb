"""From logits to the log-probabilities of labels.

Reads only the positions that are asked for, so that a prompt costs neither time nor memory, and what stands at the others can't
spoil the result. Knows nothing of losses.
"""

from __future__ import annotations

import torch
from torch import Tensor


def token_logps(logits: Tensor, labels: Tensor, wanted: Tensor, *, mean: bool = False) -> tuple[Tensor, Tensor | None]:
    """The log-probability of each wanted label, ``[B, T]``, 0 elsewhere; with ``mean`` also the vocabulary's mean of them.

    ``logits`` is ``[B, T, V]`` with any strides, ``labels`` and ``wanted`` (bool) are ``[B, T]``. The result is float32, or float64
    for float64 logits. Entries that are ``-inf`` (masked out of the vocabulary) have probability 0 and take no part in the mean;
    gradients stay finite as long as each wanted position has one finite logit.
    """
    rows = logits[wanted]  # [N, V]
    if rows.dtype != torch.float64:
        rows = rows.float()
    normalizer = torch.logsumexp(rows, dim=-1)  # [N]
    chosen = rows.gather(-1, labels[wanted].unsqueeze(-1)).squeeze(-1)
    logps = _spread(chosen - normalizer, wanted)
    if not mean:
        return logps, None
    possible = ~torch.isneginf(rows)
    mean_logits = torch.where(possible, rows, 0.0).sum(-1) / possible.sum(-1)
    return logps, _spread(mean_logits - normalizer, wanted)


def _spread(values: Tensor, wanted: Tensor) -> Tensor:
    return values.new_zeros(wanted.shape).masked_scatter(wanted, values)
