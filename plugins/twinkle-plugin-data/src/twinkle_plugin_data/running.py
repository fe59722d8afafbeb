"""Runs a step over all rows, chunk by chunk, with a progress display for long work.

Knows rows and steps, nothing of what a step does.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np

from twinkle_plugin_data.features import FeatureBuilder
from twinkle_plugin_data.rows import MemoryRows, Row, Rows, SelectedRows
from twinkle_plugin_data.steps import EncodeStep, FilterStep, Step, Where

CHUNK = 1024
"""Rows at a time: enough to amortise a call (flat from 256 to 4,096), few enough for a progress display to move."""

_PATIENCE = 1.0
"""Seconds until work counts as long and a progress display appears."""


def run(step: Step, rows: Rows) -> Rows:
    """The rows that ``step`` makes of ``rows``. ``rows`` stay as they are, also where the step fails."""
    builder = FeatureBuilder()
    made: list[Row] = []
    origins: list[int] = []
    for start in _with_progress(range(0, len(rows), CHUNK), step.label, len(rows)):
        span = range(start, min(start + CHUNK, len(rows)))
        results = step(rows.fetch(span), place_finder(rows, span))
        became = [start + place for place, result in enumerate(results) for _ in result]
        chunk = [row for result in results for row in result]
        if isinstance(step, EncodeStep):
            builder.extend(chunk, became)
        else:
            made += chunk
            origins += became
    if isinstance(step, EncodeStep):
        return builder.rows(rows)
    if isinstance(step, FilterStep):  # the rows themselves: keep them where they are
        return SelectedRows(rows, np.asarray(origins, np.int64))
    return MemoryRows(made, source=rows, origins=origins)


def place_finder(rows: Rows, indices: range | list[int]) -> Where:
    """From a position in a chunk of ``rows`` at ``indices`` to where that row came from."""

    def where(place: int) -> str:
        return rows.where(indices[place])

    return where


def _with_progress(starts: range, label: str, total: int) -> Iterator[int]:
    """``starts``, and a bar on the terminal once it takes long; silent where nobody watches."""
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        show: Callable[[int], None] | None = None
        for start in starts:
            if show is None and sys.stderr.isatty() and time.monotonic() - began > _PATIENCE:
                show = _bar(stack, label, total)
            if show is not None:
                show(start)
            yield start


def _bar(stack: contextlib.ExitStack, label: str, total: int) -> Callable[[int], None]:
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = [*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn()]
    progress = stack.enter_context(Progress(*columns, console=Console(stderr=True), transient=True))
    task = progress.add_task(label, total=total)
    return lambda done: progress.update(task, completed=done)
