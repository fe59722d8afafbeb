"""The learning-rate scheduler kind. Any class with PyTorch's scheduler interface counts; PyTorch's own are known by name."""

from __future__ import annotations

from abc import ABC
from typing import Any

from twinkle.component import component_attributes


class LRScheduler(ABC):
    """What a scheduler has: built as ``cls(optimizer, **config)``; ``step``, ``get_last_lr``, ``state_dict``, ``load_state_dict``."""

    @classmethod
    def __subclasshook__(cls, other: type) -> Any:
        needed = ("step", "get_last_lr", "state_dict", "load_state_dict")
        return all(callable(getattr(other, name, None)) for name in needed) if cls is LRScheduler else NotImplemented


__getattr__, __dir__ = component_attributes(__name__, ["lr_scheduler"], globals())
