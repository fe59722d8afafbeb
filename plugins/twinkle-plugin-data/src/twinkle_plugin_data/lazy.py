"""LazyDataset: the same data set, whose steps run when a row is looked at.

For data that is too large to encode ahead, or that is looked at once. Nothing is kept: each access fetches and encodes its rows
once.
"""

from __future__ import annotations

from collections.abc import Sequence

from twinkle.errors import DataError
from twinkle_plugin_data.dataset import Dataset
from twinkle_plugin_data.rows import Row, Rows
from twinkle_plugin_data.running import place_finder
from twinkle_plugin_data.steps import Step


class LazyDataset(Dataset):
    """Rows to train on, mapped, filtered and encoded when they are looked at.

    How many rows a filter would leave isn't known ahead, so ``len`` counts the rows of the source. In place of a row that is
    dropped stands the next one that isn't, always the same; templates can't split rows here.
    """

    _rows_ahead = 1

    def _applied(self, step: Step, rows: Rows, processes: int) -> Rows:
        return _SteppedRows(step, rows)


class _SteppedRows(Rows):
    """Rows after a step that runs when they are fetched."""

    def __init__(self, step: Step, base: Rows) -> None:
        self._step = step
        self._base = base

    def __len__(self) -> int:
        return len(self._base)

    def fetch(self, indices: Sequence[int]) -> list[Row]:
        places = [int(index) for index in indices]
        found: list[Row | None] = self._stepped(places)
        for number, row in enumerate(found):
            if row is None:
                found[number] = self._next_kept(places[number])
        return [row for row in found if row is not None]

    def where(self, index: int) -> str:
        return self._base.where(index)

    def _stepped(self, places: list[int]) -> list[Row | None]:
        results = self._step(self._base.fetch(places), place_finder(self._base, places))
        for place, result in zip(places, results, strict=True):
            if len(result) > 1:
                raise DataError(
                    f"{self._step.label} made {len(result)} rows of {self._base.where(place)}; a LazyDataset can only have one for "
                    f"each. Use a Dataset, or a truncation_strategy other than 'split'."
                )
        return [result[0] if result else None for result in results]

    def _next_kept(self, place: int) -> Row:
        for step in range(1, len(self)):
            (row,) = self._stepped([(place + step) % len(self)])
            if row is not None:
                return row
        raise DataError(f"{self._step.label} drops every row, from {self._base.where(place)} on.")
