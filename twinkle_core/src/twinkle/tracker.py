"""The tracker kind: records a run's numbers.

``Tracker`` is the contract; any other name is looked up among the installed plugins' trackers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from twinkle.component import component_attributes


class Tracker(ABC):
    """Takes numbers by step. ``close`` writes what is still in memory."""

    @abstractmethod
    def log(self, values: Mapping[str, float], *, step: int) -> None:
        """Record ``values`` at ``step``."""

    def log_config(self, config: Mapping[str, Any]) -> None:
        """Record what the run was configured with."""

    def close(self) -> None:
        """Flush and close."""


__getattr__, __dir__ = component_attributes(__name__, ["tracker"], globals())
