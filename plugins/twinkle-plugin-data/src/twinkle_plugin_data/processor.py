"""Collation: encoded rows to the tensors that a model takes, padded or packed.

Labels and their weights are shifted by one inside each row (see ``twinkle.data_format.Batch``). Leans on torch and numpy;
knows nothing of models or tokenizers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from twinkle.data_format import IGNORE_INDEX, Batch, InputFeature
from twinkle.errors import ConfigError, DataError
from twinkle.processor import Processor
from twinkle_plugin_data.features import TOKEN_FIELDS

Array = npt.NDArray[Any]
Fields = dict[str, Array]


class InputProcessor(Processor):
    """Collates rows into one ``Batch``.

    Args:
        padding_side: where shorter rows are padded; ``left`` adds ``position_ids``, so that padding moves no position.
        padding_free: pack all rows behind one another into ``[1, T]`` instead, with ``position_ids`` that restart at 0.
        pad_to_multiple_of: make ``T`` a multiple of this. A packed batch is filled up with one more sequence, without labels.
        pad_token_id: the id that padding is made of.
        token_fields: further fields of rows that hold one number for each token (``old_logps``, …). They are padded with 0 and
            are not shifted.
        concat_fields: fields of rows that are joined along their first dimension (``pixel_values``, …).
        device: where the tensors go; ``None`` leaves them where they are.

    A row's tokens that its ``attention_mask`` hides count as padding and are taken out. A row whose ``position_ids`` restart at 0
    is several sequences: no label is shifted from one to the other.
    """

    def __init__(
        self,
        padding_side: Literal["right", "left"] = "right",
        padding_free: bool = False,
        pad_to_multiple_of: int | None = None,
        *,
        pad_token_id: int = 0,
        token_fields: Sequence[str] = (),
        concat_fields: Sequence[str] = (),
        device: torch.device | str | None = None,
    ) -> None:
        if padding_side not in ("right", "left"):
            raise ConfigError(f"padding_side has to be 'right' or 'left', not {padding_side!r}.")
        if pad_to_multiple_of is not None and pad_to_multiple_of < 1:
            raise ConfigError(f"pad_to_multiple_of has to be at least 1, not {pad_to_multiple_of}.")
        self.padding_side = padding_side
        self.padding_free = padding_free
        self.pad_to_multiple_of = pad_to_multiple_of or 1
        self.pad_token_id = pad_token_id
        self.device = device
        self._token_fields = (*TOKEN_FIELDS, *token_fields)
        self._concat_fields = tuple(concat_fields)

    def __call__(self, rows: Sequence[InputFeature] | Mapping[str, Any]) -> Batch:
        """Collate ``rows``. One row by itself counts as a list of one; a mapping of ``[B, T]`` tensors counts as collated.

        Raises:
            DataError: there are no rows; one lacks ``input_ids`` or has no tokens, its fields differ in length, or it lacks one of
                ``token_fields`` or ``concat_fields`` that others have. Names the row.
        """
        if isinstance(rows, Mapping):
            collated = _collated(rows)
            if collated is not None:
                return self._placed(collated)
            one: Any = rows
            rows = [one]
        if not len(rows):
            raise DataError("There are no rows to collate.")
        fields = [self._fields_of(row, place) for place, row in enumerate(rows)]
        _complete(fields)
        batch = self._packed(fields) if self.padding_free else self._padded(fields)
        batch.update(_joined(rows, self._concat_fields))
        return self._placed(batch)

    def _fields_of(self, row: Mapping[str, Any], place: int) -> Fields:
        """The token fields of a row as arrays, hidden tokens taken out, labels and weights shifted."""
        if "input_ids" not in row:
            raise DataError(f"Row {place} of the batch has no 'input_ids'. Its fields: {', '.join(row) or 'none'}. Was it encoded?")
        fields = {name: _numbers(row[name]) for name in self._token_fields if row.get(name) is not None}
        length = len(fields["input_ids"])
        for name, values in fields.items():
            if values.shape != (length,):
                raise DataError(
                    f"Row {place} of the batch: {name!r} has shape {list(values.shape)}, but 'input_ids' has {length} tokens. "
                    f"It needs one number for each token."
                )
        mask = fields.pop("attention_mask", None)
        if mask is not None and not mask.all():
            fields = {name: values[mask.astype(bool)] for name, values in fields.items()}
        if not len(fields["input_ids"]):
            raise DataError(f"Row {place} of the batch has no tokens.")
        return _shifted(fields)

    def _padded(self, fields: list[Fields]) -> Fields:
        longest = max(len(row["input_ids"]) for row in fields)
        width = -(-longest // self.pad_to_multiple_of) * self.pad_to_multiple_of
        if self.padding_side == "left":
            for row in fields:
                row.setdefault("position_ids", np.arange(len(row["input_ids"])))
        batch = {name: np.full((len(fields), width), self._filling(name), _dtype(name, fields[0][name])) for name in fields[0]}
        mask = batch["attention_mask"] = np.zeros((len(fields), width), np.int64)
        for place, row in enumerate(fields):
            length = len(row["input_ids"])
            span = slice(0, length) if self.padding_side == "right" else slice(width - length, width)
            mask[place, span] = 1
            for name, values in row.items():
                batch[name][place, span] = values
        return batch

    def _packed(self, fields: list[Fields]) -> Fields:
        for row in fields:
            row.setdefault("position_ids", np.arange(len(row["input_ids"])))
        total = sum(len(row["input_ids"]) for row in fields)
        extra = -total % self.pad_to_multiple_of
        batch = {}
        for name, first in fields[0].items():
            filling = np.arange(extra) if name == "position_ids" else np.full(extra, self._filling(name))
            parts = [*(row[name] for row in fields), filling] if extra else [row[name] for row in fields]
            batch[name] = np.concatenate(parts, dtype=_dtype(name, first), casting="unsafe")[None]
        return batch

    def _filling(self, name: str) -> int:
        return {"input_ids": self.pad_token_id, "labels": IGNORE_INDEX}.get(name, 0)

    def _placed(self, batch: Mapping[str, Any]) -> Batch:
        placed: Any = {}  # its names come from the rows, so the TypedDict can't be written out
        for name, value in batch.items():
            tensor = torch.from_numpy(value) if isinstance(value, np.ndarray) else value
            placed[name] = tensor.to(self.device) if self.device is not None and isinstance(tensor, torch.Tensor) else tensor
        done: Batch = placed
        return done


def _numbers(values: Any) -> Array:
    """``values`` as an array; a tensor (what a model gave: on its device, in its format, with a graph) by its numbers alone."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        return np.asarray(values.float() if values.dtype == torch.bfloat16 else values)  # numpy has no bfloat16
    return np.asarray(values)


def _shifted(fields: Fields) -> Fields:
    """``fields`` with position ``t`` of labels and weights moved to ``t - 1``, inside each sequence of the row."""
    for name, nothing in (("labels", IGNORE_INDEX), ("loss_weights", 0)):
        if name not in fields:
            continue
        values = fields[name]
        shifted = np.full_like(values, nothing)
        shifted[:-1] = values[1:]
        if "position_ids" in fields:
            shifted[:-1][fields["position_ids"][1:] == 0] = nothing
        fields[name] = shifted
    return fields


def _complete(fields: list[Fields]) -> None:
    """Give every row the fields that any has, where what is missing is known: no labels, weights of 1, positions from 0."""
    names = dict.fromkeys(name for row in fields for name in row)
    for place, row in enumerate(fields):
        length = len(row["input_ids"])
        if "labels" in names:
            row.setdefault("labels", np.full(length, IGNORE_INDEX))
        if "loss_weights" in names and "loss_weights" not in row:
            labels = row.get("labels", np.zeros(0))
            row["loss_weights"] = (labels != IGNORE_INDEX).astype(np.float32) if len(labels) else np.ones(length, np.float32)
        if "position_ids" in names:
            row.setdefault("position_ids", np.arange(length))
        for name in names:
            if name not in row:
                raise DataError(f"Row {place} of the batch has no {name!r}, which other rows have.")


def _dtype(name: str, values: Array) -> Any:
    if name == "loss_weights" or values.dtype.kind == "f":
        return np.float32
    return np.int64 if values.dtype.kind in "iu" else values.dtype


def _joined(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Fields:
    joined = {}
    for name in names:
        have = [name in row for row in rows]
        if all(have):
            joined[name] = np.concatenate([_numbers(row[name]) for row in rows])
        elif any(have):
            raise DataError(f"Row {have.index(False)} of the batch has no {name!r}, which other rows have.")
    return joined


def _collated(rows: Mapping[str, Any]) -> dict[str, Any] | None:
    """The mapping itself, lists made arrays, where it is a batch; None where it is one row."""
    if "input_ids" not in rows:
        raise DataError(f"The batch has no 'input_ids'. Its fields: {', '.join(rows) or 'none'}.")
    ids = rows["input_ids"] if isinstance(rows["input_ids"], torch.Tensor) else _array("input_ids", rows["input_ids"])
    if ids.ndim == 1:
        return None
    if ids.ndim != 2:
        raise DataError(f"The batch's 'input_ids' has {ids.ndim} dimensions; it needs two, [B, T].")
    return {
        name: _array(name, value) if isinstance(value, list) and name in TOKEN_FIELDS else value for name, value in rows.items()
    }


def _array(name: str, value: Any) -> Array:
    try:
        return np.asarray(value)
    except ValueError:
        raise DataError(f"The batch's {name!r} holds rows of different lengths; give a list of rows to be padded.") from None
