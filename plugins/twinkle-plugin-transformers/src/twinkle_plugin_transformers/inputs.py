"""What a batch has to keep to, so that a model can look its numbers up.

On an accelerator a token outside the vocabulary ends the whole process; here it is one row's error. Knows nothing of losses.
"""

from __future__ import annotations

import logging
from typing import Any

from torch import Tensor, nn

from twinkle.data_format import IGNORE_INDEX, Batch
from twinkle.errors import DataError

_log = logging.getLogger("twinkle.model")


class InputCheck:
    """Checks batches for one model."""

    def __init__(self, base: Any) -> None:
        self._base = base
        self._vocabulary = _rows_of(base.get_input_embeddings())
        self._told = False

    def __call__(self, batch: Batch) -> None:
        """Check tokens, labels and lengths.

        Raises:
            DataError: a token or label isn't in the vocabulary, or a row is longer than the model's table of positions.
        """
        ids, labels = batch["input_ids"], batch.get("labels")
        if self._vocabulary is not None:
            self._in_vocabulary("token", ids, 0, self._vocabulary)
            if labels is not None:
                self._in_vocabulary("label", labels, IGNORE_INDEX, self._vocabulary)
        positions = batch.get("position_ids")
        self._fits(ids.shape[1] if positions is None else int(positions.max()) + 1)

    @staticmethod
    def _in_vocabulary(what: str, values: Tensor, lowest: int, vocabulary: int) -> None:
        least, most = (int(value) for value in values.aminmax())
        if least < lowest or most >= vocabulary:
            wrong = least if least < lowest else most
            place = int((values == wrong).any(1).nonzero()[0])
            raise DataError(
                f"Row {place} of the batch has the {what} {wrong}, but the model's vocabulary has {vocabulary}. "
                f"Was it encoded with another model's tokenizer?"
            )

    def _fits(self, length: int) -> None:
        longest = getattr(self._base.config.get_text_config(), "max_position_embeddings", None)
        if not isinstance(longest, int) or length <= longest:
            return
        if has_position_table(self._base, longest):
            raise DataError(f"A row has {length} tokens, but the model has {longest} positions. Set max_length in the template.")
        if not self._told:
            self._told = True
            _log.warning(
                "A row has %d tokens; the model was made for %d. Set max_length in the template to cut it.", length, longest
            )


def has_position_table(base: nn.Module, positions: int) -> bool:
    """Whether positions are looked up in a table (as GPT-2's), which ends; rotary ones go on."""
    tokens = base.get_input_embeddings()  # type: ignore[operator]  # of every Transformers model
    tables = [module for module in base.modules() if isinstance(module, nn.Embedding) and module is not tokens]
    return any(positions <= table.num_embeddings <= positions + 2 for table in tables)  # OPT's begins at 2


def _rows_of(embedding: Any) -> int | None:
    weight = getattr(embedding, "weight", None)
    return weight.shape[0] if isinstance(weight, Tensor) and weight.dim() == 2 else None
