"""Encoded rows, kept compactly: for tokens one flat array a field, with offsets; anything else as it is.

``FeatureBuilder`` takes features chunk by chunk, ``FeatureRows`` gives them back. Rows may have different fields. Token ids,
labels, masks and positions become int32, weights float32, whatever they came as.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from twinkle.errors import DataError
from twinkle_plugin_data.rows import Indices, Row, Rows

TOKEN_FIELDS = ("input_ids", "labels", "loss_weights", "attention_mask", "position_ids")
"""The fields of an ``InputFeature`` that hold one number for each token."""

_ABSENT: Any = object()
_INT32 = np.iinfo(np.int32)


class FeatureRows(Rows):
    """The rows that a ``FeatureBuilder`` took. Arrays in what ``fetch`` gives are the caller's own."""

    def __init__(self, tokens: dict[str, _TokenColumn], others: dict[str, list[Any]], source: Rows, origins: Indices) -> None:
        self._tokens = tokens
        self._others = others
        self._source = source
        self._origins = origins

    def __len__(self) -> int:
        return len(self._origins)

    def fetch(self, indices: Sequence[int]) -> list[Row]:
        rows: list[Row] = [{} for _ in indices]
        for name, column in self._tokens.items():
            column.fill(name, rows, indices)
        for name, values in self._others.items():
            for row, index in zip(rows, indices, strict=True):
                if values[index] is not _ABSENT:
                    row[name] = values[index]
        return rows

    def where(self, index: int) -> str:
        return self._source.where(int(self._origins[index]))


class FeatureBuilder:
    """Collects features into ``FeatureRows``."""

    def __init__(self) -> None:
        self._tokens: dict[str, _TokenColumn] = {}
        self._others: dict[str, list[Any]] = {}
        self._origins: list[int] = []

    def extend(self, features: Sequence[Mapping[str, Any]], origins: Iterable[int]) -> None:
        """Take features, and for each the index of the source row that it was made from.

        Raises:
            DataError: a field of ``TOKEN_FIELDS`` holds no flat sequence of numbers.
        """
        before = len(self._origins)
        self._origins.extend(origins)
        for name in dict.fromkeys([*self._tokens, *self._others, *(key for feature in features for key in feature)]):
            values = [feature.get(name, _ABSENT) for feature in features]
            if name in TOKEN_FIELDS:
                self._tokens.setdefault(name, _TokenColumn(before)).extend(name, values)
            else:
                self._others.setdefault(name, [_ABSENT] * before).extend(values)

    def rows(self, source: Rows) -> FeatureRows:
        """What was collected, made from ``source``. The builder is used up."""
        for column in self._tokens.values():
            column.close()
        return FeatureRows(self._tokens, self._others, source, np.asarray(self._origins, np.int64))


class _TokenColumn:
    """One number for each token of each row. A row without the field counts as empty and isn't ``present``."""

    def __init__(self, before: int) -> None:
        self._parts: list[npt.NDArray[Any]] = []
        self._lengths = [0] * before
        self._present = [False] * before
        self._flat: npt.NDArray[Any] = np.empty(0, np.int32)
        self._offsets: Indices = np.zeros(1, np.int64)

    def extend(self, name: str, values: list[Any]) -> None:
        given = [value for value in values if value is not _ABSENT]
        if given:
            self._parts.append(_flattened(name, given))
        if len(given) == len(values):
            self._lengths.extend(map(len, values))
            self._present.extend([True] * len(values))
        else:
            self._lengths.extend(0 if value is _ABSENT else len(value) for value in values)
            self._present.extend(value is not _ABSENT for value in values)

    def close(self) -> None:
        self._flat = np.concatenate(self._parts) if self._parts else self._flat
        self._offsets = np.concatenate([[0], np.cumsum(self._lengths, dtype=np.int64)])
        self._parts.clear()
        self._lengths.clear()

    def fill(self, name: str, rows: list[Row], indices: Sequence[int]) -> None:
        for row, index in zip(rows, indices, strict=True):
            if self._present[index]:
                row[name] = self._flat[self._offsets[index] : self._offsets[index + 1]].copy()


def _flattened(name: str, values: list[Any]) -> npt.NDArray[Any]:
    """All ``values`` behind one another, as int32 or float32."""
    try:
        flat = np.concatenate(values)
    except ValueError as error:
        raise DataError(f"{name!r} has to be a flat sequence of numbers, one for each token: {error}.") from None
    if flat.ndim != 1 or flat.dtype.kind not in "iubf":
        raise DataError(f"{name!r} has to be a flat sequence of numbers, not {flat.dtype} of {flat.ndim} dimensions.")
    if name == "loss_weights":
        return flat.astype(np.float32, copy=False)
    if flat.size and (flat.dtype.kind == "f" or flat.max() > _INT32.max or flat.min() < _INT32.min):
        raise DataError(f"{name!r} holds {flat.min()} … {flat.max()} as {flat.dtype}; it has to hold whole numbers of 32 bits.")
    return flat.astype(np.int32, copy=False)
