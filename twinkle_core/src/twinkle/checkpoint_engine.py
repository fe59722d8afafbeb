"""The checkpoint-engine kind: weights from a trainer to samplers.

``CheckpointEngine`` is the contract; any other name is looked up among the installed plugins' checkpoint engines.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from twinkle.component import component_attributes

if TYPE_CHECKING:
    from torch import Tensor


class CheckpointEngine(ABC):
    """Moves named tensors from senders to receivers, in order, whole or not at all."""

    @abstractmethod
    def send_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Send all of ``weights``; returns when every receiver has them."""

    @abstractmethod
    def receive_weights(self) -> Iterator[tuple[str, Tensor]]:
        """The tensors that the sender sends, in its order."""


__getattr__, __dir__ = component_attributes(__name__, ["checkpoint_engine"], globals())
