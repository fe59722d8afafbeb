"""A sum of numbers that may still be on their way from a device.

Reading a number from an accelerator waits for everything queued before it. ``Total`` keeps such numbers as they are and reads them
all at once, when somebody wants the sum or when many are waiting. Knows nothing of metrics.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

WAITING = 256
"""So many numbers are kept unread: one read in 256 micro-batches costs nothing, 256 scalars neither."""


class Total:
    """The sum of what was added: float64, however it came."""

    def __init__(self) -> None:
        self._sum = 0.0
        self._waiting: list[Tensor | float] = []

    def add(self, value: Tensor | float) -> None:
        """Add a number, or a tensor with one element (detached here; no graph is kept alive)."""
        self._waiting.append(value if isinstance(value, (int, float)) else value.detach())
        if len(self._waiting) >= WAITING:
            self._read()

    def value(self) -> float:
        """The sum so far."""
        self._read()
        return self._sum

    def _read(self) -> None:
        numbers = [value for value in self._waiting if isinstance(value, (int, float))]
        tensors = [value for value in self._waiting if not isinstance(value, (int, float))]
        if tensors:
            numbers += _read_together(tensors)
        self._sum = math.fsum((self._sum, *numbers))
        self._waiting = []


def _read_together(tensors: list[Tensor]) -> list[float]:
    import torch

    by_kind: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for tensor in tensors:
        by_kind.setdefault((tensor.device, tensor.dtype), []).append(tensor.reshape(()))
    return [float(number) for group in by_kind.values() for number in torch.stack(group).tolist()]
