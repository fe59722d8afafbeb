"""The template kind: conversations to token ids and labels, and back; and the parsers of tool calls in generated text.

``BaseTemplate`` is the contract. Any other name is looked up among the installed plugins' templates and tool-call parsers.
Knows nothing of models.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

from twinkle.component import component_attributes
from twinkle.data_format import InputFeature, Message, Trajectory

TruncationStrategy = Literal["raise", "left", "right", "split", "delete"]


class BaseTemplate(ABC):
    """Encodes trajectories. What it is given is never changed; ``user_data`` is carried through to the features."""

    @abstractmethod
    def batch_encode(self, trajectories: Sequence[Trajectory], *, add_generation_prompt: bool = False) -> list[list[InputFeature]]:
        """Encode many at once: for each trajectory the features that it gave.

        One, but for truncation: none where ``delete`` dropped it, several where ``split`` cut it.

        Raises:
            DataError: a row is malformed, or longer than allowed under ``raise``; names the row's index.
        """

    @abstractmethod
    def decode(self, token_ids: Sequence[int], **kwargs: Any) -> str:
        """The text of ``token_ids``."""

    def encode(self, trajectory: Trajectory, add_generation_prompt: bool = False) -> InputFeature:
        """Encode one.

        Raises:
            DataError: as ``batch_encode``, and where truncation gave none or several features.
        """
        from twinkle.errors import DataError

        features = self.batch_encode([trajectory], add_generation_prompt=add_generation_prompt)[0]
        if len(features) != 1:
            raise DataError(
                f"This row gave {len(features)} features under its truncation strategy; use batch_encode for such rows."
            )
        return features[0]

    def check(self, trajectory: Trajectory) -> Trajectory | None:
        """The trajectory itself where it can be encoded, else None."""
        from twinkle.errors import DataError

        try:
            return trajectory if self.batch_encode([trajectory])[0] else None
        except DataError:
            return None

    def batch_check(self, trajectories: Sequence[Trajectory]) -> list[Trajectory | None]:
        """``check`` for each."""
        return [self.check(trajectory) for trajectory in trajectories]

    def batch_decode(self, token_ids: Sequence[Sequence[int]], **kwargs: Any) -> list[str]:
        """``decode`` for each."""
        return [self.decode(ids, **kwargs) for ids in token_ids]


class ToolCallParser(ABC):
    """Finds tool calls in generated text."""

    @abstractmethod
    def parse(self, text: str) -> Message:
        """The assistant message that ``text`` stands for: its content without the calls, and ``tool_calls``."""


__getattr__, __dir__ = component_attributes(__name__, ["template", "tool_call_parser"], globals())
