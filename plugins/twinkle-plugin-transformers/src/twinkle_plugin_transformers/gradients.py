"""What happens to gradients between the last backward pass and the optimizer.

Micro-batches accumulate the gradient of a *sum* over tokens; once for each optimizer step that sum is reduced over data-parallel
ranks, divided by the number of tokens of the whole step, and clipped. One flat reduction for each dtype instead of hooks on every
backward pass (as DistributedDataParallel has): it works with any set of adapters, unused parameters cost nothing to find, and
accumulation needs no ``no_sync``. What is given up is overlap with the backward pass. Knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from twinkle_plugin_transformers.data_parallel import DataParallel


def reduce_gradients(parameters: Sequence[nn.Parameter], parallel: DataParallel) -> None:
    """Sum gradients over data-parallel ranks, in place.

    A parameter without a gradient here counts as zero where another rank has one, so ranks whose rows touched different parameters
    agree. One without a gradient anywhere keeps having none, so that no optimizer decays what wasn't used.
    """
    if parallel.size == 1 or not parameters:
        return
    used = torch.tensor([float(parameter.grad is not None) for parameter in parameters], device=parameters[0].device)
    parallel.all_reduce_sum(used)
    for parameter, count in zip(parameters, used.tolist(), strict=True):
        if count and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    for bucket in _buckets([parameter.grad for parameter in parameters if parameter.grad is not None], parallel.bucket_bytes):
        flat = torch.cat([grad.reshape(-1) for grad in bucket])
        parallel.all_reduce_sum(flat)
        offset = 0
        for grad in bucket:
            grad.copy_(flat[offset : offset + grad.numel()].view_as(grad))
            offset += grad.numel()


def normalise_and_clip(parameters: Sequence[nn.Parameter], total: float, max_norm: float | None) -> float:
    """Divide gradients by ``total``, clip their joint 2-norm to ``max_norm``; returns the norm before clipping.

    Both are one multiplication. ``max_norm`` None or not positive means no clipping. Where the norm isn't finite the gradients are
    left as they are, for the caller to drop. A ``total`` of 0 (no token was labelled) counts as 1: the gradient is zero anyway.
    """
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not grads:
        return 0.0
    total = total or 1.0
    norm = float(nn.utils.get_total_norm(grads, foreach=True if grads[0].device.type == "cpu" else None)) / abs(total)
    if not torch.isfinite(torch.tensor(norm)):
        return norm
    scale = 1.0 / total
    if max_norm is not None and max_norm > 0:
        scale *= min(1.0, max_norm / (norm + 1e-6))  # the same 1e-6 as torch.nn.utils.clip_grad_norm_
    torch._foreach_mul_(grads, scale)
    return norm


def _buckets(grads: Sequence[Tensor], limit: int) -> list[list[Tensor]]:
    """Gradients in order, cut where the dtype or device changes or ``limit`` bytes are full. The same cuts on every rank."""
    buckets: list[list[Tensor]] = []
    size = 0
    for grad in grads:
        bytes_ = grad.numel() * grad.element_size()
        fits = (
            bool(buckets) and size + bytes_ <= limit and (buckets[-1][0].dtype, buckets[-1][0].device) == (grad.dtype, grad.device)
        )
        if fits:
            buckets[-1].append(grad)
            size += bytes_
        else:
            buckets.append([grad])
            size = bytes_
    return buckets
