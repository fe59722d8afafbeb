"""Rows by index, wherever they are: in memory, in Arrow, a selection of others, several behind one another.

``Rows`` is what the stages of a data set hand to each other. Every row remembers where it came from (``where``), through
slices, filters and mixtures, so that an error can name it. What ``fetch`` gives is read only by convention: whoever hands rows
to strangers copies them (``copied``). Knows nothing of trajectories or tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Row = dict[str, Any]
Indices = npt.NDArray[np.int64]


class Rows(ABC):
    """A finite sequence of rows, fetched many at a time."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def fetch(self, indices: Sequence[int]) -> list[Row]:
        """The rows at ``indices``, each in ``range(len(self))``, in that order."""

    @abstractmethod
    def where(self, index: int) -> str:
        """Where the row at ``index`` came from, for messages: ``row 17 of 'ms://swift/self-cognition'``."""


class MemoryRows(Rows):
    """A list of dictionaries.

    ``source`` and ``origins`` say which row of which other rows each was made from; without them the rows are the source, called
    ``name``.
    """

    def __init__(
        self, rows: list[Row], *, name: str = "", source: Rows | None = None, origins: Sequence[int] | None = None
    ) -> None:
        self._rows = rows
        self._name = name
        self._source = source
        self._origins = None if origins is None else np.asarray(origins, np.int64)

    def __len__(self) -> int:
        return len(self._rows)

    def fetch(self, indices: Sequence[int]) -> list[Row]:
        rows = self._rows
        return [rows[index] for index in indices]

    def where(self, index: int) -> str:
        return _where(index, self._name, self._source, self._origins)


class ArrowRows(Rows):
    """The rows of a ``datasets.Dataset``: on disk or in memory, decoded when they are fetched.

    Arrow knows no absent fields inside a structure, only nulls. Rows get them back: a null inside a nested structure (a message
    without ``tool_calls``) is left out; a null column of the row stays ``None``.
    """

    def __init__(self, dataset: Any, *, name: str) -> None:
        import pyarrow.types

        self.dataset = dataset
        self._name = name
        self._nested = [field.name for field in dataset.data.schema if pyarrow.types.is_nested(field.type)]

    def __len__(self) -> int:
        return len(self.dataset)

    def fetch(self, indices: Sequence[int]) -> list[Row]:
        if not len(indices):
            return []
        columns = self.dataset[_span(indices)]
        for name in self._nested:
            columns[name] = [_without_nulls(value) for value in columns[name]]
        names = list(columns)
        return [dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def where(self, index: int) -> str:
        return _where(index, self._name, None, None)


class SelectedRows(Rows):
    """Some rows of others, in any order; a row may come more than once."""

    def __init__(self, base: Rows, indices: Sequence[int] | Indices) -> None:
        self._base = base
        self._indices = np.asarray(indices, np.int64)

    def __len__(self) -> int:
        return len(self._indices)

    def fetch(self, indices: Sequence[int]) -> list[Row]:
        return self._base.fetch(self._indices[np.asarray(indices, np.int64)].tolist())

    def where(self, index: int) -> str:
        return self._base.where(int(self._indices[index]))


class ConcatenatedRows(Rows):
    """Rows of several, one after the other."""

    def __init__(self, parts: Sequence[Rows]) -> None:
        self._parts = list(parts)
        self._starts = np.cumsum([0, *map(len, parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def fetch(self, indices: Sequence[int]) -> list[Row]:
        wanted = np.asarray(indices, np.int64)
        owners = self._owner(wanted)
        found: list[Row] = [{}] * len(wanted)
        for owner in np.unique(owners).tolist():
            places = np.flatnonzero(owners == owner)
            rows = self._parts[owner].fetch((wanted[places] - self._starts[owner]).tolist())
            for place, row in zip(places.tolist(), rows, strict=True):
                found[place] = row
        return found

    def where(self, index: int) -> str:
        owner = int(self._owner(np.asarray([index]))[0])
        return self._parts[owner].where(index - int(self._starts[owner]))

    def _owner(self, indices: Indices) -> Indices:
        return np.searchsorted(self._starts, indices, side="right") - 1


def concatenated(parts: Sequence[Rows]) -> Rows:
    """``parts`` as one."""
    return parts[0] if len(parts) == 1 else ConcatenatedRows(parts)


def copied(value: Any) -> Any:
    """A copy of plain nested data, arrays included; anything else in it is shared."""
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [copied(item) for item in value]
    if isinstance(value, np.ndarray):
        return value.copy()
    return value


def _where(index: int, name: str, source: Rows | None, origins: Indices | None) -> str:
    if source is None:
        return f"row {index} of {name!r}"
    return source.where(index if origins is None else int(origins[index]))


def _span(indices: Sequence[int]) -> slice | list[int]:
    """A slice where the indices are consecutive: Arrow reads those without a gather."""
    first, last = int(indices[0]), int(indices[-1])
    if last - first + 1 == len(indices) and (np.diff(indices) == 1).all():
        return slice(first, last + 1)
    return [int(index) for index in indices]


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value
