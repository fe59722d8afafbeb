"""One batch in smaller pieces, and their outputs put together again.

Knows nothing of models or losses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from twinkle.data_format import ModelOutput
from twinkle.errors import ConfigError


def count_rows(inputs: Any) -> int:
    """How many rows ``inputs`` has: a list of them, or a mapping of ``[B, T]`` tensors."""
    return len(inputs["input_ids"]) if isinstance(inputs, Mapping) else len(inputs)


def split_rows(inputs: Any, size: int | None, kwargs: Mapping[str, Any]) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Pieces of at most ``size`` rows, each with its part of ``kwargs``.

    Of ``kwargs``, lists, arrays and tensors with one entry for each row are cut; everything else (numbers, texts, tuples, …) goes
    to every piece as it is.

    Raises:
        ConfigError: ``size`` isn't positive, or the batch is packed into one row and can't be cut.
    """
    rows = count_rows(inputs)
    if size is None or size >= rows:
        yield inputs, dict(kwargs)
        return
    if size < 1:
        raise ConfigError(f"micro_batch_size has to be positive, not {size}.")
    for start in range(0, rows, size):
        piece = slice(start, start + size)
        if isinstance(inputs, Mapping):
            part: Any = {name: value[piece] if _has_rows(value, rows) else value for name, value in inputs.items()}
        else:
            part = inputs[piece]
        yield part, {name: value[piece] if _has_rows(value, rows) else value for name, value in kwargs.items()}


def join_outputs(parts: Sequence[ModelOutput]) -> ModelOutput:
    """The outputs of all pieces as if of one batch; shorter ones are padded with 0 (False) to the longest."""
    if len(parts) == 1:
        return parts[0]
    joined = ModelOutput()
    for name in parts[0]:
        values = [part[name] for part in parts]  # type: ignore[literal-required]
        if name != "loss":
            joined[name] = torch.cat(_padded(values))  # type: ignore[literal-required]
    return joined


def _padded(values: Sequence[Tensor]) -> list[Tensor]:
    width = max(value.shape[1] for value in values)
    padded = []
    for value in values:
        missing = width - value.shape[1]
        sides = [0, 0] * (value.dim() - 2) + [0, missing]
        padded.append(functional.pad(value, sides) if missing else value)
    return padded


def _has_rows(value: Any, rows: int) -> bool:
    if isinstance(value, Tensor) or hasattr(value, "__array__"):
        return len(value.shape) > 0 and value.shape[0] == rows
    return isinstance(value, list) and len(value) == rows
