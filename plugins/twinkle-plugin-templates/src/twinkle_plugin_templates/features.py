"""Tokens and spans to labelled rows, and rows to pieces that fit.

Vectorised over a batch: spans of characters become labels of tokens, then each row is cut to ``max_length`` by its strategy. A
token is labelled where the character in which it begins lies in a span: one that straddles a span's start belongs to what came
before it, one that straddles its end to the span. Knows nothing of chats.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from twinkle.data_format import IGNORE_INDEX, InputFeature
from twinkle.errors import DataError
from twinkle.template import TruncationStrategy
from twinkle_plugin_templates.rendering import Span
from twinkle_plugin_templates.tokenization import Encoded

if TYPE_CHECKING:
    from numpy.typing import NDArray


def span_weights(
    encoded: Encoded,
    starts: Sequence[int],
    spans: Sequence[Sequence[Span]],
    weights: Sequence[Sequence[float] | None],
) -> NDArray[np.float32]:
    """``[tokens]`` float32: the weight of the span in which each token begins, 0 outside.

    ``spans[i]`` are disjoint and ascending, in characters of text ``i``, which begins at ``starts[i]`` of the joined texts.
    ``weights[i]`` has one entry a span; None: 1 for each.
    """
    flat = np.array([base + border for base, row in zip(starts, spans, strict=True) for span in row for border in span], np.int64)
    values = [w for row, given in zip(spans, weights, strict=True) for w in (given or (1.0,) * len(row))]
    # Between two borders all tokens have one weight: borders to token positions, then runs of equal weight.
    borders = np.searchsorted(encoded.starts, flat, side="left")
    runs = np.diff(borders, prepend=0, append=len(encoded.ids))
    levels = np.zeros(len(borders) + 1, np.float32)
    levels[1::2] = values
    return np.repeat(levels, runs)


def truncate(row: int, feature: InputFeature, max_length: int | None, strategy: TruncationStrategy) -> list[InputFeature]:
    """The pieces that ``feature`` gives under ``strategy``: itself where it fits. May leave pieces without any label.

    Raises:
        DataError: it doesn't fit, under ``raise``; names the row, its length and the ways out.
    """
    length = len(feature["input_ids"])
    if max_length is None or length <= max_length:
        return [feature]
    if strategy == "raise":
        raise DataError(
            f"Row {row} has {length} tokens, more than max_length={max_length}. Set a larger max_length, or "
            f"truncation_strategy='left' or 'right' (cut), 'split' (several rows) or 'delete' (drop it)."
        )
    if strategy == "delete":
        return []
    if strategy == "left":
        return [_piece(feature, length - max_length, length)]
    if strategy == "right":
        return [_piece(feature, 0, max_length)]
    return [_piece(feature, start, min(start + max_length, length)) for start in range(0, length, max_length)]


def _piece(feature: InputFeature, start: int, end: int) -> InputFeature:
    piece = feature.copy()
    piece["input_ids"] = feature["input_ids"][start:end]
    piece["length"] = end - start
    if "labels" in feature:
        piece["labels"] = feature["labels"][start:end]
    if "loss_weights" in feature:
        piece["loss_weights"] = feature["loss_weights"][start:end]
    return piece


def labels_of(ids: NDArray[np.int32], weights: NDArray[np.float32]) -> NDArray[np.int32]:
    """``ids`` where there is a weight, ``IGNORE_INDEX`` elsewhere. Not shifted."""
    return np.where(weights > 0, ids, np.int32(IGNORE_INDEX))
