"""Rows for a data loader: fetched where its workers run, with what to do about those that can't be had.

Errors travel from worker processes as values, so that they arrive as they were raised. Knows nothing of batches and ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from twinkle.errors import DataError, TwinkleError

OnError = Literal["raise", "skip"]

_MOST_SKIPPED = 20
"""Bad rows one after the other until it is the data set that is bad, not a row."""


@dataclass(frozen=True)
class SkippedRow:
    """A row that was left out, and why."""

    index: int
    reason: str


class Fetched(NamedTuple):
    """What a worker hands over: a batch, or the error that it met; and the rows that it left out."""

    batch: Any
    skipped: list[SkippedRow]
    error: TwinkleError | None = None

    def result(self) -> Any:
        """The batch.

        Raises:
            TwinkleError: the error that was met in place of it.
        """
        if self.error is not None:
            raise self.error
        return self.batch


class RowFetcher:
    """Fetches the rows of a batch from ``dataset``, all in one call where it can (``__getitems__``), and collates them."""

    def __init__(self, dataset: Any, on_error: OnError, collate: Callable[[list[Any]], Any] | None) -> None:
        self._dataset = dataset
        self._on_error = on_error
        self._collate = collate

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitems__(self, indices: Sequence[int]) -> Fetched:
        skipped: list[SkippedRow] = []
        try:
            rows = self._fetch(indices, skipped)
        except TwinkleError as error:
            return Fetched(None, skipped, error)
        return Fetched(rows if self._collate is None else self._collate(rows), skipped)

    def _fetch(self, indices: Sequence[int], skipped: list[SkippedRow]) -> list[Any]:
        try:
            return self._rows(indices)
        except Exception:
            if self._on_error == "raise":
                raise
        return [self._row_or_next(index, skipped) for index in indices]

    def _rows(self, indices: Sequence[int]) -> list[Any]:
        if hasattr(self._dataset, "__getitems__"):
            return list(self._dataset.__getitems__(indices))
        return [self._dataset[index] for index in indices]

    def _row_or_next(self, index: int, skipped: list[SkippedRow]) -> Any:
        for step in range(_MOST_SKIPPED):
            place = (index + step) % len(self)
            try:
                return self._rows([place])[0]
            except Exception as error:
                skipped.append(SkippedRow(place, str(error) or type(error).__name__))
        raise DataError(
            f"{_MOST_SKIPPED} rows one after the other can't be had, from row {index} on. The last: {skipped[-1].reason}"
        )
