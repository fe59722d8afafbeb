"""The dataloader kind: batches of rows, each data-parallel rank its own slice, resumable to the exact row.

``BaseDataLoader`` is the contract; any other name is looked up among the installed plugins' data loaders.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from twinkle.component import component_attributes
from twinkle.data_format import InputFeature


class BaseDataLoader(ABC):
    """Gives batches. ``len()`` is the number of batches that one pass gives."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __iter__(self) -> Iterator[list[InputFeature]]: ...

    @abstractmethod
    def get_state(self) -> dict[str, Any]:
        """Where the pass stands, as plain data: after what was given to the caller, not what was prefetched."""

    @abstractmethod
    def resume_from_checkpoint(self, state: dict[str, Any]) -> None:
        """Make the next iteration go on after ``state``."""


__getattr__, __dir__ = component_attributes(__name__, ["dataloader"], globals())
