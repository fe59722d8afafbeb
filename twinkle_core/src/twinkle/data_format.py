"""The plain dictionaries in which data moves between components.

Typed dictionaries and nothing else: ``Message`` and ``Trajectory`` are what people write, ``InputFeature`` is one encoded
row, ``Batch`` is what an ``InputProcessor`` makes of rows for the model, ``ModelOutput`` and ``LossOutput`` are what models and
losses return, ``SamplingParams`` … ``SampleResponse`` belong to samplers. Imports no torch; tensors are named in comments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NotRequired, Required, TypedDict

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

IGNORE_INDEX = -100
"""The label of a token that isn't trained on (PyTorch's and Transformers' own convention)."""

Role = Literal["system", "developer", "user", "assistant", "tool"]


class FunctionCall(TypedDict):
    name: str
    arguments: dict[str, Any] | str


class ToolCall(TypedDict, total=False):
    id: str
    type: Literal["function"]
    function: Required[FunctionCall]


class Message(TypedDict, total=False):
    """One turn of a chat. ``content`` is text, or a list of parts (``{"type": "text" | "image" | "audio" | "video", …}``)."""

    role: Required[Role]
    content: str | list[dict[str, Any]] | None
    reasoning_content: str
    tool_calls: list[ToolCall]
    tool_call_id: str
    name: str
    loss_weight: float  # how much this message's tokens count in training; templates decide the default by role


class Trajectory(TypedDict, total=False):
    """A conversation and what belongs to it. ``user_data`` is carried through encoding untouched (ground truths, ids, …)."""

    messages: Required[list[Message]]
    tools: list[dict[str, Any]]
    user_data: dict[str, Any]


class InputFeature(TypedDict, total=False):
    """One encoded row.

    ``labels[t]`` is ``input_ids[t]`` where token ``t`` is trained on and ``IGNORE_INDEX`` elsewhere: not shifted.
    """

    input_ids: Required[Sequence[int] | np.ndarray]
    labels: Sequence[int] | np.ndarray
    loss_weights: Sequence[float] | np.ndarray  # per token, aligned with labels; absent: 1 for each labelled token
    attention_mask: Sequence[int] | np.ndarray
    position_ids: Sequence[int] | np.ndarray
    length: int
    user_data: dict[str, Any]


class Batch(TypedDict, total=False):
    """Collated rows as a model takes them. All tensors are ``[B, T]`` on the model's device.

    ``labels`` are shifted: ``labels[b, t]`` is the token that position ``t`` has to predict, ``IGNORE_INDEX`` where none; so
    ``labels``, ``loss_weights`` and ``ModelOutput.logps`` align. Padded batches carry ``attention_mask``; packed ones carry
    ``position_ids`` that restart at 0 with each sequence, and no ``attention_mask``.
    """

    input_ids: Required[Tensor]  # int64
    labels: Tensor  # int64
    loss_weights: Tensor  # float32
    attention_mask: Tensor  # int64, 1 for tokens and 0 for padding
    position_ids: Tensor  # int64


class ModelOutput(TypedDict, total=False):
    """What a forward pass gives. Only what the loss declared (``Loss.require_*``) or the caller asked for is there."""

    logits: Tensor  # [B, T, V]
    logps: Tensor  # [B, T] float32: log-probability of labels[b, t], 0 where there is no label
    mean_logps: Tensor  # [B, T] float32: mean over the vocabulary of the log-probabilities, 0 where there is no label
    entropies: Tensor  # [B, T] float32, nats, 0 where there is no label
    correct: Tensor  # [B, T] bool: the label has the highest logit; False where there is no label
    loss: Tensor | float


class LossOutput(TypedDict):
    """A loss over a (micro-)batch, as a sum and what it is a sum over.

    The optimizer sees ``sum(loss) / sum(num_tokens)`` over all micro-batches and data-parallel ranks of a step, so
    accumulation changes nothing. ``num_tokens`` is one of

    - the number, or total weight, of tokens (or sequences, or pairs) in ``loss``. Where the sum over the step is 0 (nothing was
      labelled), ``loss`` is 0 too, and the model divides by 1, not by 0;
    - ``1.0`` for a loss that is already a mean: then micro-batches count equally;
    - ``None`` for a loss that isn't to be normalised: the optimizer sees the plain ``sum(loss)`` over all micro-batches and
      ranks. ``None`` in one micro-batch and a number in another of the same step is an error: a step has one normalisation.

    ``metrics`` holds scalars, or detached tensors that align with ``labels``, that the loss has computed anyway.
    """

    loss: Tensor  # scalar, float32 (float64 where the model's outputs are)
    num_tokens: Tensor | float | None
    metrics: NotRequired[dict[str, Any]]


@dataclass(frozen=True)
class SamplingParams:
    """How to sample a completion. ``seed`` makes a sample independent of the batch that it is in."""

    max_tokens: int = 128
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    num_samples: int = 1
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    seed: int | None = None
    logprobs: bool = True


@dataclass
class SampledSequence:
    """One completion: its tokens, their log-probabilities and the row that continues the prompt with it."""

    tokens: list[int]
    logprobs: list[float] | None = None
    text: str | None = None
    stop_reason: Literal["stop", "length"] = "stop"
    new_input_feature: InputFeature | None = None


@dataclass
class SampleResponse:
    """All completions of one prompt."""

    sequences: list[SampledSequence]
    prompt_logprobs: list[float] | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
