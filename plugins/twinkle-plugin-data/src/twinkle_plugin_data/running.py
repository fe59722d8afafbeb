"""Runs a step over all rows, chunk by chunk, with a progress display for long work.

Knows rows and steps, nothing of what a step does.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from twinkle.logger import get_logger
from twinkle_plugin_data.features import FeatureBuilder
from twinkle_plugin_data.parallel import can_fork, ordered_results
from twinkle_plugin_data.rows import MemoryRows, Row, Rows, SelectedRows
from twinkle_plugin_data.steps import EncodeStep, FilterStep, Step, Where

CHUNK = 1024
"""Rows at a time: enough to amortise a call (flat from 256 to 4,096), few enough for a progress display to move."""

FEWEST_SHARED_ROWS = 20_000
"""Rows from which on several processes are worth their start."""

_PATIENCE = 1.0
"""Seconds until work counts as long and a progress display appears."""


def run(step: Step, rows: Rows) -> Rows:
    """The rows that ``step`` makes of ``rows``. ``rows`` stay as they are, also where the step fails."""
    made: list[Row] = []
    origins: list[int] = []
    for span in _with_progress(_spans(rows), step.label, len(rows)):
        chunk, became = _stepped(step, rows, span)
        made += chunk
        origins += became
    if isinstance(step, FilterStep):  # the rows themselves: keep them where they are
        return SelectedRows(rows, np.asarray(origins, np.int64))
    _tell_dropped(step, len(rows), len(set(origins)))
    return MemoryRows(made, source=rows, origins=origins)


def encode(step: EncodeStep, rows: Rows, processes: int = 1) -> Rows:
    """The features that ``step`` makes of ``rows``, kept compactly; by several processes where that is worth it."""

    def work(number: int) -> FeatureBuilder:
        features, became = _stepped(step, rows, spans[number])
        return FeatureBuilder(features, became)

    spans = _spans(rows)
    share = processes > 1 and len(rows) >= FEWEST_SHARED_ROWS and can_fork()
    results = ordered_results(work, len(spans), processes) if share else (work(number) for number in range(len(spans)))
    builder = FeatureBuilder()
    with contextlib.closing(results):
        for _, part in zip(_with_progress(spans, step.label, len(rows)), results, strict=True):
            builder.absorb(part)
    features = builder.rows(rows)
    _tell_dropped(step, len(rows), features.num_sources)
    return features


def place_finder(rows: Rows, indices: range | list[int]) -> Where:
    """From a position in a chunk of ``rows`` at ``indices`` to where that row came from."""

    def where(place: int) -> str:
        return rows.where(indices[place])

    return where


def _spans(rows: Rows) -> list[range]:
    return [range(start, min(start + CHUNK, len(rows))) for start in range(0, len(rows), CHUNK)]


def _stepped(step: Step, rows: Rows, span: range) -> tuple[list[Row], list[int]]:
    """What became of the rows of a chunk, and for each result the index of the row that it came from."""
    results = step(rows.fetch(span), place_finder(rows, span))
    became = [span[place] for place, result in enumerate(results) for _ in result]
    return [row for result in results for row in result], became


def _tell_dropped(step: Step, before: int, after: int) -> None:
    if after < before:
        get_logger("twinkle.data").info("%s dropped %d of %d rows", step.label, before - after, before)


def _with_progress(spans: Iterable[range], label: str, total: int) -> Iterator[range]:
    """``spans``, and a bar on the terminal once it takes long; silent where nobody watches."""
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        show: Callable[[int], None] | None = None
        for span in spans:
            if show is None and sys.stderr.isatty() and time.monotonic() - began > _PATIENCE:
                show = _bar(stack, label, total)
            if show is not None:
                show(span.start)
            yield span


def _bar(stack: contextlib.ExitStack, label: str, total: int) -> Callable[[int], None]:
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = [*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn()]
    progress = stack.enter_context(Progress(*columns, console=Console(stderr=True), transient=True))
    task = progress.add_task(label, total=total)
    return lambda done: progress.update(task, completed=done)
