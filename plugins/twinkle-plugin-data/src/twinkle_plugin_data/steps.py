"""What is done to rows: map, filter, encode, check.

A ``Step`` takes a chunk of rows and gives for each row the rows that it became: none, one or several. Steps know nothing of when
they are run: at once over everything (``Dataset``) or row by row when somebody looks (``LazyDataset``). When a step fails,
the error names the row, by asking ``where``.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twinkle.data_format import Trajectory
from twinkle.errors import DataError
from twinkle.preprocessor import Filter, Preprocessor
from twinkle.template import BaseTemplate
from twinkle_plugin_data.features import TOKEN_FIELDS
from twinkle_plugin_data.rows import Row, copied

Where = Callable[[int], str]
"""From a position in the chunk to where that row came from."""

_PLACE_IN_BATCH = re.compile(r"^Row 0\b[:,]?\s*")
_NOT_CARRIED = frozenset({"messages", "tools", *TOKEN_FIELDS})


class Step(ABC):
    """One thing that is done to rows."""

    label: str

    @abstractmethod
    def __call__(self, rows: list[Row], where: Where) -> Sequence[Sequence[Row]]:
        """For each row what became of it.

        Raises:
            DataError: a row can't be processed; names where it came from.
        """


class MapStep(Step):
    """Each row becomes what a preprocessor or function makes of it; None drops it.

    ``batched`` functions take a list of rows and return as many results.
    """

    label = "map"

    def __init__(self, function: Callable[..., Any], *, batched: bool) -> None:
        self._function = function
        self._batched = batched
        self._name = name_of(function)
        # A preprocessor's contract says that it changes no row; a stranger's function gets rows of its own.
        self._copy = not isinstance(function, Preprocessor)

    def __call__(self, rows: list[Row], where: Where) -> Sequence[Sequence[Row]]:
        if self._batched:
            results = self._call_batched(rows, where)
        else:
            results = [self._call(row, row, where(place)) for place, row in enumerate(rows)]
        return [self._kept(result, place, where) for place, result in enumerate(results)]

    def _call_batched(self, rows: list[Row], where: Where) -> list[Any]:
        try:
            results = list(self._function(copied(rows) if self._copy else rows))
        except Exception as error:
            for place, row in enumerate(rows):  # one by one, to find the row that fails
                self._call([row], row, where(place))
            raise row_error(error, self._name, {}, f"the rows from {where(0)} to {where(len(rows) - 1)}") from error
        if len(results) != len(rows):
            raise DataError(
                f"{self._name} was given {len(rows)} rows and returned {len(results)} results. It has to return one for each row, "
                f"None for a row that is dropped."
            )
        return results

    def _call(self, argument: Any, row: Row, where: str) -> Any:
        try:
            return self._function(copied(argument) if self._copy else argument)
        except Exception as error:
            raise row_error(error, self._name, row, where) from error

    def _kept(self, result: Any, place: int, where: Where) -> Sequence[Row]:
        if result is None:
            return ()
        if not isinstance(result, Mapping):
            raise DataError(
                f"{self._name} returned {type(result).__name__} for {where(place)}; it has to return a dictionary or None."
            )
        return (dict(result) if type(result) is not dict else result,)


class FilterStep(Step):
    """A row stays where the filter says so."""

    label = "filter"

    def __init__(self, function: Callable[[Row], Any]) -> None:
        self._function = function
        self._name = name_of(function)
        self._copy = not isinstance(function, Filter)

    def __call__(self, rows: list[Row], where: Where) -> Sequence[Sequence[Row]]:
        results: list[Sequence[Row]] = []
        for place, row in enumerate(rows):
            try:
                keep = self._function(copied(row) if self._copy else row)
            except Exception as error:
                raise row_error(error, self._name, row, where(place)) from error
            results.append((row,) if keep else ())
        return results


class EncodeStep(Step):
    """Trajectories become features. Columns beside the trajectory's own go along."""

    label = "encode"

    def __init__(self, template: BaseTemplate, *, add_generation_prompt: bool) -> None:
        self._template = template
        self._add_generation_prompt = add_generation_prompt

    def __call__(self, rows: list[Row], where: Where) -> Sequence[Sequence[Row]]:
        trajectories = as_trajectories(rows, where)
        try:
            results = self._encode(trajectories)
        except Exception:
            self._raise_for_row(trajectories, where)
            raise
        for row, features in zip(rows, results, strict=True):
            if len(row) > 1:
                _carry(row, features)
        return results

    def _encode(self, trajectories: Sequence[Trajectory]) -> list[Any]:
        return list(self._template.batch_encode(trajectories, add_generation_prompt=self._add_generation_prompt))

    def _raise_for_row(self, trajectories: Sequence[Trajectory], where: Where) -> None:
        """Encode one by one to find the row that fails; a template knows no more of a row than its place in the chunk."""
        for place, trajectory in enumerate(trajectories):
            try:
                self._encode([trajectory])
            except Exception as error:
                raise encode_error(error, self._template, where(place)) from error


class CheckStep(Step):
    """Rows that the template can't encode are dropped."""

    label = "check"

    def __init__(self, template: BaseTemplate) -> None:
        self._template = template

    def __call__(self, rows: list[Row], where: Where) -> Sequence[Sequence[Row]]:
        trajectories: list[Any] = rows
        return [() if found is None else (row,) for row, found in zip(rows, self._template.batch_check(trajectories), strict=True)]


def as_trajectories(rows: list[Row], where: Where) -> list[Trajectory]:
    """``rows``, which must have messages.

    Raises:
        DataError: one hasn't, or they are no list; names it, what it has, and what to do.
    """
    for place, row in enumerate(rows):
        messages = row.get("messages")
        if not isinstance(messages, list) or not messages:
            raise DataError(_no_messages(row, where(place)))
    trajectories: list[Any] = rows
    return trajectories


def row_error(error: Exception, name: str, row: Row, where: str) -> DataError:
    """The error to raise where ``name`` failed on ``row``."""
    if isinstance(error, KeyError) and error.args and error.args[0] not in row:
        return DataError(f"{_capital(where)} has no field {error.args[0]!r}, which {name} needs. {_fields(row)}")
    reason = str(error) if isinstance(error, DataError) else f"{type(error).__name__}: {error}"
    return DataError(f"{name} failed on {where}: {reason.rstrip('.')}. {_fields(row)}")


def encode_error(error: Exception, template: BaseTemplate, where: str) -> DataError:
    """The error to raise where ``template`` failed on a row, which it calls the first of its batch."""
    reason = _PLACE_IN_BATCH.sub("", str(error)) if isinstance(error, DataError) else f"{type(error).__name__}: {error}"
    return DataError(f"{type(template).__name__} can't encode {where}: {reason}")


def name_of(function: Any) -> str:
    """What to call a preprocessor, filter or function in a message."""
    inner = getattr(function, "func", function)  # a partial
    return getattr(inner, "__name__", None) or type(inner).__name__


def _carry(row: Row, features: Sequence[Any]) -> None:
    for name, value in row.items():
        if name not in _NOT_CARRIED:
            for feature in features:
                feature.setdefault(name, value)


def _no_messages(row: Row, where: str) -> str:
    if "input_ids" in row:
        return f"{_capital(where)} is encoded already."
    if "messages" in row:
        return f"{_capital(where)} has no messages: 'messages' is {row['messages']!r:.60}, and has to be a list with at least one."
    return (
        f"{_capital(where)} has no field 'messages', so it can't be encoded. {_fields(row)} "
        f"Turn rows into trajectories first: dataset.map(<a preprocessor, or a function that returns {{'messages': […]}}>)."
    )


def _fields(row: Row) -> str:
    return f"Its fields: {', '.join(map(str, row)) or 'none'}."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
