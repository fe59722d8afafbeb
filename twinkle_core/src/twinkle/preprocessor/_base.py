"""The contracts of preprocessors and filters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from twinkle.data_format import Trajectory

Row = Mapping[str, Any]


class Preprocessor(ABC):
    """Turns raw rows into trajectories, each row by itself. Rows are never changed."""

    @abstractmethod
    def preprocess(self, row: Row) -> Trajectory | None:
        """The trajectory of one row, or None where the row is of no use.

        Raises:
            DataError: the row lacks a field, or holds what can't be understood; names the field.
        """

    def __call__(self, rows: Sequence[Row]) -> list[Trajectory | None]:
        """``preprocess`` for each row, in order; override it where a batch can be done faster, with the same result."""
        return [self.preprocess(row) for row in rows]


class Filter(ABC):
    """Decides which rows stay."""

    @abstractmethod
    def __call__(self, row: Row) -> bool:
        """Whether to keep ``row``."""


DataFilter = Filter
"""The name that existing scripts use."""
