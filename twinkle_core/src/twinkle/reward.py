"""The reward kind: how good a completion is.

``Reward`` is the contract; any other name is looked up among the installed plugins' rewards. Knows nothing of tokens or models.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from twinkle.component import component_attributes
from twinkle.data_format import Trajectory


class Reward(ABC):
    """One number for each trajectory, whatever the others in the batch are."""

    @abstractmethod
    def __call__(
        self, trajectories: Sequence[Trajectory], ground_truths: Sequence[Any] | None = None, **kwargs: Any
    ) -> list[float]:
        """The rewards, one a trajectory, in order.

        ``ground_truths``, where given, has one entry a trajectory; else they are taken from ``user_data``.
        """


__getattr__, __dir__ = component_attributes(__name__, ["reward"], globals())
