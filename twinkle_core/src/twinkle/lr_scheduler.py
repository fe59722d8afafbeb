"""The learning-rate scheduler kind. Any class with PyTorch's scheduler interface counts; PyTorch's own are known by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from twinkle.component import component_attributes


class LRScheduler(ABC):
    """Sets an optimizer's learning rates; built as ``cls(optimizer, **config)``. A class with these four methods is one."""

    @classmethod
    def __subclasshook__(cls, other: type) -> Any:
        needed = ("step", "get_last_lr", "state_dict", "load_state_dict")
        return all(callable(getattr(other, name, None)) for name in needed) if cls is LRScheduler else NotImplemented

    @abstractmethod
    def step(self) -> None:
        """Go on to the next step's learning rates."""

    @abstractmethod
    def get_last_lr(self) -> list[float]:
        """The learning rate of each parameter group now."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Where the schedule stands, as plain data."""

    @abstractmethod
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from ``state_dict``."""


__getattr__, __dir__ = component_attributes(__name__, ["lr_scheduler"], globals())
