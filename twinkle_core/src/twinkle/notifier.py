"""The notifier kind: tells people that a run began, ended or failed.

``Notifier`` is the contract; any other name is looked up among the installed plugins' notifiers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from twinkle.component import component_attributes


class Notifier(ABC):
    """Sends one message. A failure to send is logged and never ends a run."""

    @abstractmethod
    def __call__(self, message: str, **details: Any) -> None:
        """Send ``message``."""


__getattr__, __dir__ = component_attributes(__name__, ["notifier"], globals())
