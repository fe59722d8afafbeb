"""Filters: which rows to keep, by length or by what their fields hold.

Plain Python on plain dictionaries; knows nothing of files or torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twinkle.errors import ConfigError, DataError
from twinkle.preprocessor import Filter, Row


class LengthFilter(Filter):
    """Keeps rows whose ``field`` has ``min_length`` to ``max_length`` items, both included.

    What an item is depends on the field: tokens for ``input_ids`` (so filter after ``encode``), characters for text, characters of
    all contents for ``messages``.
    """

    def __init__(self, max_length: int | None = None, min_length: int = 0, field: str = "input_ids") -> None:
        if max_length is not None and max_length < min_length:
            raise ConfigError(f"LengthFilter keeps nothing: max_length {max_length} is less than min_length {min_length}.")
        self._max_length = max_length
        self._min_length = min_length
        self._field = field

    def __call__(self, row: Row) -> bool:
        """Whether the length is in the range.

        Raises:
            DataError: the row has no such field, or it has no length.
        """
        length = self._length(row)
        return self._min_length <= length and (self._max_length is None or length <= self._max_length)

    def _length(self, row: Row) -> int:
        if self._field not in row:
            hint = " Rows have it once they are encoded." if self._field == "input_ids" else ""
            raise DataError(f"there is no field {self._field!r}.{hint}")
        value = row[self._field]
        if self._field == "messages":
            return sum(_characters(message.get("content")) for message in value)
        try:
            return len(value)
        except TypeError:
            raise DataError(f"{self._field!r} has no length: it is {value!r:.60}") from None


class RequiredFieldsFilter(Filter):
    """Keeps rows in which every one of ``fields`` is there and neither None nor empty nor blank text."""

    def __init__(self, fields: Sequence[str]) -> None:
        self._fields = (fields,) if isinstance(fields, str) else tuple(fields)

    def __call__(self, row: Row) -> bool:
        """Whether all fields hold something. Zero and False are something."""
        return all(_holds_something(row.get(field)) for field in self._fields)


class ChoiceFilter(Filter):
    """Keeps rows whose ``field`` is one of ``choices`` (``exclude``: is none of them). A row without the field holds None."""

    def __init__(self, field: str, choices: Sequence[Any], exclude: bool = False) -> None:
        self._field = field
        self._choices = (choices,) if isinstance(choices, str) else tuple(choices)
        self._exclude = exclude

    def __call__(self, row: Row) -> bool:
        """Whether the field holds one of the choices."""
        return (row.get(self._field) in self._choices) is not self._exclude


def _characters(content: Any) -> int:
    if isinstance(content, list):
        return sum(len(part.get("text") or "") for part in content)
    return len(content or "")


def _holds_something(value: Any) -> bool:
    if isinstance(value, str):
        return bool(value.strip())
    return value is not None and (not hasattr(value, "__len__") or len(value) > 0)
