"""The optimizer kind. Any class with PyTorch's optimizer interface counts; PyTorch's own are known by name."""

from __future__ import annotations

from abc import ABC
from typing import Any

from twinkle.component import component_attributes


class Optimizer(ABC):
    """What an optimizer has: ``step``, ``zero_grad``, ``state_dict``, ``load_state_dict`` and ``param_groups``."""

    @classmethod
    def __subclasshook__(cls, other: type) -> Any:
        needed = ("step", "zero_grad", "state_dict", "load_state_dict")
        return all(callable(getattr(other, name, None)) for name in needed) if cls is Optimizer else NotImplemented


__getattr__, __dir__ = component_attributes(__name__, ["optimizer"], globals())
