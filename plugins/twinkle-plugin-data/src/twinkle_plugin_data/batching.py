"""Which rows make which batch, and which of them are a rank's: arithmetic on indices alone.

Every rank computes the same order and the same number of batches, so none waits for another. Knows nothing of rows, workers or
torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from twinkle_plugin_data.rows import Indices


@dataclass(frozen=True)
class Plan:
    """How ``num_rows`` rows are dealt out in global batches of ``batch_size``.

    The last batch may be short; one of fewer than ``min_batch_size`` rows is left out.
    """

    num_rows: int
    batch_size: int
    min_batch_size: int
    shuffle: bool
    seed: int

    def num_batches(self, consumed: int = 0) -> int:
        """How many batches there are after the first ``consumed`` rows of a pass."""
        full, tail = divmod(max(self.num_rows - consumed, 0), self.batch_size)
        return full + (tail >= self.min_batch_size)

    def rows_of_a_pass(self) -> int:
        """How many rows a whole pass hands out: all but a rest that is left out."""
        return min(self.num_batches() * self.batch_size, self.num_rows)

    def order(self, epoch: int) -> Indices:
        """The order of all rows in a pass: the same for the same seed and epoch, on every rank and machine."""
        if not self.shuffle:
            return np.arange(self.num_rows)
        return np.random.default_rng([self.seed, epoch]).permutation(self.num_rows)


class RankBatches:
    """One rank's share of each batch, and how far the batches have been handed out.

    Iterating gives lists of row indices from the current position on and doesn't move it: whoever iterates may be ahead
    (prefetching). ``span_of`` gives the rank's slice of a global batch of a given size.
    """

    def __init__(self, plan: Plan, span_of: Callable[[int], slice]) -> None:
        self._plan = plan
        self._span_of = span_of
        self.epoch = 0
        self.consumed = 0

    def __len__(self) -> int:
        return self._plan.num_batches(self.consumed)

    def __iter__(self) -> Iterator[list[int]]:
        plan, consumed, order = self._plan, self.consumed, self._plan.order(self.epoch)
        for number in range(plan.num_batches(consumed)):
            start = consumed + number * plan.batch_size
            batch = order[start : start + plan.batch_size]
            yield batch[self._span_of(len(batch))].tolist()

    def hand_out(self) -> None:
        """Note that one more batch was given away."""
        self.consumed = min(self.consumed + self._plan.batch_size, self._plan.num_rows)

    def next_pass(self) -> None:
        """Go to the start of the next pass."""
        self.seek(self.epoch + 1, 0)

    def seek(self, epoch: int, consumed: int) -> None:
        """Go to where ``consumed`` rows of pass ``epoch`` were handed out; to the next pass where that was all of it."""
        if consumed and not self._plan.num_batches(consumed):
            epoch, consumed = epoch + 1, 0
        self.epoch, self.consumed = epoch, consumed
