"""Encoded rows, kept compactly: for tokens one flat array a field, with offsets; anything else as it is.

``FeatureBuilder`` collects features, chunk by chunk and also from other processes; ``FeatureRows`` gives them back. Rows may
have different fields. Token ids, labels, masks and positions become int32, weights float32, whatever they came as.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from twinkle.errors import DataError
from twinkle_plugin_data.rows import Indices, Row, Rows

TOKEN_FIELDS = ("input_ids", "labels", "loss_weights", "attention_mask", "position_ids")
"""The fields of an ``InputFeature`` that hold one number for each token."""

_INT32 = np.iinfo(np.int32)

Flat = npt.NDArray[Any]


class FeatureRows(Rows):
    """The rows that a ``FeatureBuilder`` took, made from those of ``source`` at ``origins``."""

    def __init__(self, tokens: dict[str, _TokenColumn], others: dict[str, dict[int, Any]], source: Rows, origins: Indices) -> None:
        self._tokens = tokens
        self._others = others
        self._source = source
        self._origins = origins

    def __len__(self) -> int:
        return len(self._origins)

    @property
    def num_sources(self) -> int:
        """How many rows of the source at least one row came from."""
        return len(np.unique(self._origins))

    def fetch(self, indices: Sequence[int]) -> list[Row]:
        rows: list[Row] = [{} for _ in indices]
        for name, column in self._tokens.items():
            column.fill(name, rows, indices)
        for name, values in self._others.items():
            for row, index in zip(rows, indices, strict=True):
                if index in values:
                    row[name] = values[index]
        return rows

    def where(self, index: int) -> str:
        return self._source.where(int(self._origins[index]))


class FeatureBuilder:
    """Collects features, and for each the index of the source row that it was made from.

    Raises:
        DataError: a field of ``TOKEN_FIELDS`` holds no flat sequence of numbers.
    """

    def __init__(self, features: Sequence[Mapping[str, Any]] = (), origins: Sequence[int] = ()) -> None:
        self._origins = list(origins)
        self._tokens: dict[str, _TokenParts] = {}
        self._others: dict[str, dict[int, Any]] = {}
        for name in dict.fromkeys(key for feature in features for key in feature):
            if name in TOKEN_FIELDS:
                self._tokens[name] = _TokenParts(name, [feature.get(name) for feature in features])
            else:
                self._others[name] = {index: feature[name] for index, feature in enumerate(features) if name in feature}

    def absorb(self, other: FeatureBuilder) -> None:
        """Take over what ``other`` collected, after what is here."""
        before, more = len(self._origins), len(other._origins)
        self._origins += other._origins
        for name in other._tokens.keys() - self._tokens.keys():
            self._tokens[name] = _TokenParts(name, [None] * before)
        for name, parts in self._tokens.items():
            parts.extend(other._tokens.get(name) or _TokenParts(name, [None] * more))
        for name, values in other._others.items():
            self._others.setdefault(name, {}).update((before + index, value) for index, value in values.items())

    def rows(self, source: Rows) -> FeatureRows:
        """What was collected, made from ``source``."""
        tokens = {name: self._tokens[name].column() for name in TOKEN_FIELDS if name in self._tokens}
        return FeatureRows(tokens, self._others, source, np.asarray(self._origins, np.int64))


class _TokenParts:
    """A token field of many rows; None where a row doesn't have it."""

    def __init__(self, name: str, values: list[Any]) -> None:
        self._lengths = [-1 if value is None else len(value) for value in values]
        given = [value for value in values if value is not None]
        self._parts = [_flattened(name, given)] if given else []

    def extend(self, other: _TokenParts) -> None:
        self._lengths += other._lengths
        self._parts += other._parts

    def column(self) -> _TokenColumn:
        return _TokenColumn(np.concatenate(self._parts), np.asarray(self._lengths))


class _TokenColumn:
    """One number for each token of each row, all behind one another. A length of -1 says that a row has no such field."""

    def __init__(self, flat: Flat, lengths: Indices) -> None:
        self._flat = flat
        self._ends = np.cumsum(np.maximum(lengths, 0), dtype=np.int64)
        self._lengths = lengths

    def fill(self, name: str, rows: list[Row], indices: Sequence[int]) -> None:
        ends, lengths = self._ends[np.asarray(indices)].tolist(), self._lengths[np.asarray(indices)].tolist()
        for row, end, length in zip(rows, ends, lengths, strict=True):
            if length >= 0:
                row[name] = self._flat[end - length : end]


def _flattened(name: str, values: list[Any]) -> Flat:
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
