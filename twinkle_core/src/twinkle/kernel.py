"""The kernel kind: faster implementations of a model's layers.

``Kernel`` is the contract; any other name is looked up among the installed plugins' kernels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from twinkle.component import component_attributes


class Kernel(ABC):
    """A set of replacements: which layer or function, on which device, by what."""

    @abstractmethod
    def mapping(self) -> Mapping[str, Any]:
        """Layer class or function name to its replacement, or to a dictionary of replacements by device type."""


__getattr__, __dir__ = component_attributes(__name__, ["kernel"], globals())
