"""Texts to token ids with the character at which each token begins.

``Codec`` is what the template encodes with; ``HFCodec`` is the tokenizer's own batch call. Results of a batch are flat arrays,
so that everything after them works by vectors. Knows nothing of chats or labels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from twinkle.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Encoded:
    """The tokens of several texts, one after the other.

    Attributes:
        ids: ``[sum(counts)]`` int32.
        starts: ``[sum(counts)]`` int64: the character in which each token begins, counted through the joined texts. Where a
            character is split among tokens, all of them begin in it.
        counts: ``[texts]`` int64: tokens of each text.
    """

    ids: NDArray[np.int32]
    starts: NDArray[np.int64]
    counts: NDArray[np.int64]

    @property
    def bounds(self) -> NDArray[np.int64]:
        """``[texts + 1]``: text ``i`` has the tokens ``bounds[i]`` to ``bounds[i + 1]``."""
        return np.concatenate([[0], np.cumsum(self.counts)])


class Codec(ABC):
    """Encodes texts exactly as the tokenizer does with ``add_special_tokens=False``."""

    @abstractmethod
    def encode_batch(self, texts: Sequence[str]) -> Encoded:
        """The tokens of ``texts``."""


class HFCodec(Codec):
    """The batch call of a tokenizer of the ``tokenizers`` library.

    Raises:
        ConfigError: ``tokenizer`` is of another kind, which can't say where its tokens begin.
    """

    def __init__(self, tokenizer: Any) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise ConfigError(
                f"{type(tokenizer).__name__} has no fast tokenizer, so it can't tell where its tokens lie in the text, and "
                f"labels need that. Convert it: a repository with a tokenizer.json loads as a fast one."
            )
        # Left over from an earlier call, they would change what encode_batch gives. Transformers sets both anew with each call.
        backend.no_truncation()
        backend.no_padding()
        self.backend = backend

    def encode_batch(self, texts: Sequence[str]) -> Encoded:
        encodings = self.backend.encode_batch(list(texts), add_special_tokens=False)
        counts = np.fromiter((len(encoding) for encoding in encodings), np.int64, len(texts))
        total = int(counts.sum())
        ids = np.fromiter((token for encoding in encodings for token in encoding.ids), np.int32, total)
        starts = np.fromiter((start for encoding in encodings for start, _ in encoding.offsets), np.int64, total)
        return Encoded(ids, starts + np.repeat(text_starts(texts), counts), counts)


def text_starts(texts: Sequence[str]) -> NDArray[np.int64]:
    """``[texts]``: where each text begins in the joined texts, in characters."""
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    return np.cumsum(lengths) - lengths
