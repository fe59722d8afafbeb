"""Rows to a batch, one batch in smaller pieces, and their outputs put together again.

Pieces are cut from the collated batch, so whatever aligns with it, from its other outputs to tensors that a loss is given, goes on
doing so. Knows nothing of models or losses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from twinkle.data_format import Batch, ModelOutput
from twinkle.errors import ConfigError


@dataclass(frozen=True)
class Pieces:
    """A collated batch as pieces, each with its part of the loss's keywords.

    ``dim`` is the dimension of ``[B, T]`` along which pieces follow one another: 0, or 1 where all rows are packed into one.
    """

    whole: Batch
    parts: list[tuple[Batch, dict[str, Any]]]
    dim: int = 0

    def join(self, outputs: Sequence[ModelOutput]) -> ModelOutput:
        """The pieces' outputs as those of ``whole``."""
        if len(outputs) == 1:
            return outputs[0]
        parts: Any = outputs
        joined: Any = {name: torch.cat([part[name] for part in parts], self.dim) for name in parts[0]}
        found: ModelOutput = joined
        return found


def collate(rows: Any, collator: Callable[[Any], Batch], size: int | None, kwargs: Mapping[str, Any]) -> Pieces:
    """Collate ``rows`` and cut the batch into pieces of at most ``size`` rows. A batch that came packed stays one piece.

    Of ``kwargs``, lists, arrays and tensors with one entry for each row are cut; everything else (numbers, texts, tuples, …) goes
    to every piece as it is.

    Raises:
        ConfigError: ``size`` isn't positive.
    """
    if size is not None and size < 1:
        raise ConfigError(f"micro_batch_size has to be positive, not {size}.")
    whole = collator(rows)
    collated = len(whole["input_ids"])
    given = collated if isinstance(rows, Mapping) else len(rows)
    if size is None or size >= given:
        return Pieces(whole, [(whole, dict(kwargs))])
    slices = [slice(start, start + size) for start in range(0, given, size)]
    own = [{name: value[piece] if _has_rows(value, given) else value for name, value in kwargs.items()} for piece in slices]
    if collated == given:
        fields: dict[str, Any] = {**whole}
        cut: list[Any] = [
            {name: value[piece] if _has_rows(value, given) else value for name, value in fields.items()} for piece in slices
        ]
        return Pieces(whole, list(zip(cut, own, strict=True)))
    packed = [collator(rows[piece]) for piece in slices]
    return Pieces(_behind_one_another(packed), list(zip(packed, own, strict=True)), dim=1)


def narrowed(batch: Batch) -> tuple[Batch, int, int]:
    """``batch`` without the columns at its left and right that are padding in every row, and how many there were."""
    mask, width = batch.get("attention_mask"), batch["input_ids"].shape[1]
    used = None if mask is None else mask.any(0).nonzero()
    if used is None or not len(used):
        return batch, 0, 0
    first, last = int(used[0]), int(used[-1]) + 1
    if last - first == width:
        return batch, 0, 0
    fields: dict[str, Any] = {**batch}
    cut: Any = {name: value[:, first:last] if _is_token_field(value, batch) else value for name, value in fields.items()}
    return cut, first, width - last


def widened(output: ModelOutput, left: int, right: int) -> ModelOutput:
    """Outputs ``[B, T, …]`` with 0 (False) in the columns that ``narrowed`` took away."""
    if not left and not right:
        return output
    wide: Any = {name: _padded(value, left, right) for name, value in output.items()}
    found: ModelOutput = wide
    return found


def _padded(value: Any, left: int, right: int) -> Tensor:
    return functional.pad(value, [0, 0] * (value.dim() - 2) + [left, right])


def join_rows(parts: Sequence[ModelOutput]) -> ModelOutput:
    """Outputs of different batches, behind one another; shorter ones are padded with 0 (False) to the longest."""
    if len(parts) == 1:
        return parts[0]
    joined: Any = {}
    for name in parts[0].keys() - {"loss"}:
        values: Any = [part[name] for part in parts]  # type: ignore[literal-required]  # the names of a TypedDict aren't literals here
        width = max(value.shape[1] for value in values)
        joined[name] = torch.cat([_padded(value, 0, width - value.shape[1]) for value in values])
    found: ModelOutput = joined
    return found


def _behind_one_another(packed: Sequence[Batch]) -> Batch:
    parts: Any = packed
    joined: Any = {
        name: torch.cat([part[name] for part in parts], 1 if _is_token_field(value, packed[0]) else 0)
        for name, value in parts[0].items()
    }
    whole: Batch = joined
    return whole


def _is_token_field(value: Any, batch: Batch) -> bool:
    return isinstance(value, Tensor) and value.shape == batch["input_ids"].shape


def _has_rows(value: Any, rows: int) -> bool:
    if isinstance(value, Tensor) or hasattr(value, "__array__"):
        return len(value.shape) > 0 and value.shape[0] == rows
    return isinstance(value, list) and len(value) == rows
