"""The optimizer kind. Any class with PyTorch's optimizer interface counts; PyTorch's own are known by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from twinkle.component import component_attributes


class Optimizer(ABC):
    """Changes parameters by their gradients; built as ``cls(parameters, **config)``. A class with these four methods is one."""

    @classmethod
    def __subclasshook__(cls, other: type) -> Any:
        needed = ("step", "zero_grad", "state_dict", "load_state_dict")
        return all(callable(getattr(other, name, None)) for name in needed) if cls is Optimizer else NotImplemented

    @abstractmethod
    def step(self) -> Any:
        """Change the parameters."""

    @abstractmethod
    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """State and options, as PyTorch's optimizers give them."""

    @abstractmethod
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from ``state_dict``."""


__getattr__, __dir__ = component_attributes(__name__, ["optimizer"], globals())
