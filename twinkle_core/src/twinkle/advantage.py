"""The advantage kind: rewards to advantages.

``Advantage`` is the contract; any other name is looked up among the installed plugins' advantages. Knows nothing of tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from twinkle.component import component_attributes

if TYPE_CHECKING:
    from torch import Tensor


class Advantage(ABC):
    """From the rewards of completions to how much better each was than expected."""

    @abstractmethod
    def __call__(self, rewards: Sequence[float] | Tensor, **kwargs: Any) -> Tensor:
        """The advantages, float32, one for each reward (or each token, where the method works by token)."""


__getattr__, __dir__ = component_attributes(__name__, ["advantage"], globals())
