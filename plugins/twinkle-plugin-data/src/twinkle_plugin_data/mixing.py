"""Mixing several rows into one sequence: in turn, or at random with given probabilities.

Works on lengths and indices alone; knows nothing of what the rows hold.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import numpy as np

from twinkle.errors import ConfigError
from twinkle_plugin_data.rows import Indices, Rows, SelectedRows, concatenated

StoppingStrategy = Literal["first_exhausted", "all_exhausted", "all_exhausted_without_replacement"]


def mixed(parts: Sequence[Rows], probabilities: Sequence[float] | None, seed: int, stopping_strategy: StoppingStrategy) -> Rows:
    """``parts`` interleaved.

    Raises:
        ConfigError: the probabilities aren't one positive number for each part, or there is no such stopping strategy.
    """
    if stopping_strategy not in get_args(StoppingStrategy):
        raise ConfigError(f"stopping_strategy has to be one of {', '.join(get_args(StoppingStrategy))}, not {stopping_strategy!r}.")
    if probabilities is not None and (len(probabilities) != len(parts) or min(probabilities) <= 0):
        raise ConfigError(
            f"probabilities {list(probabilities)} have to be one positive number for each of the {len(parts)} data sets."
        )
    if not parts:
        return concatenated(parts)
    lengths = [len(part) for part in parts]
    starts = np.cumsum([0, *lengths[:-1]])
    return SelectedRows(concatenated(parts), _order(lengths, starts, probabilities, seed, stopping_strategy))


def _order(
    lengths: list[int], starts: Indices, probabilities: Sequence[float] | None, seed: int, stop: StoppingStrategy
) -> Indices:
    turns = _turns(len(lengths), probabilities, seed)
    taken = [0] * len(lengths)
    left = {part for part, length in enumerate(lengths) if length}
    if stop == "first_exhausted" and len(left) < len(lengths):
        return np.empty(0, np.int64)
    order: list[int] = []
    while left:
        part = next(turns)
        if taken[part] >= lengths[part] and (stop == "all_exhausted_without_replacement" or not lengths[part]):
            continue
        order.append(int(starts[part]) + taken[part] % lengths[part])
        taken[part] += 1
        if taken[part] == lengths[part]:
            left.discard(part)
            if stop == "first_exhausted":
                break
    return np.asarray(order, np.int64)


def _turns(parts: int, probabilities: Sequence[float] | None, seed: int) -> Iterator[int]:
    """Whose turn it is, without end."""
    if probabilities is None:
        yield from itertools.cycle(range(parts))
        return
    chances = np.asarray(probabilities, np.float64)
    random = np.random.default_rng(seed)
    while True:
        yield from random.choice(parts, size=1024, p=chances / chances.sum()).tolist()
