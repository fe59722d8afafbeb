"""How often the model's likeliest next token is the label.

Counts over the trained tokens of all micro-batches and ranks. Knows nothing of losses.
"""

from __future__ import annotations

import math
from typing import Any, TypedDict

import torch
from torch import Tensor

from twinkle.data_format import IGNORE_INDEX, Batch, ModelOutput
from twinkle.metric import Gather, Measurement, Measurements, Metric
from twinkle_plugin_metrics.total import Total


class AccuracyState(TypedDict):
    """One rank's counts of tokens."""

    correct: float
    tokens: float


class Accuracy(Metric):
    """``accuracy``: the share of trained tokens whose label has the highest logit; a fraction, shown in ``%``.

    A token counts where it has a label and its ``loss_weights`` isn't 0. Reads ``outputs["correct"]``, or ``outputs["logits"]``
    where a model gives only those. What there is nothing to compute from is left out.
    """

    require_correct = True

    def __init__(self, *, device_mesh: Any = None, gather: Gather | None = None) -> None:
        super().__init__(device_mesh=device_mesh, gather=gather)
        self.reset()

    def accumulate(self, inputs: Batch | None, outputs: ModelOutput | None, **kwargs: Any) -> None:
        """Count a micro-batch. A call without inputs (after an optimizer step) counts nothing.

        Raises:
            ValueError: ``outputs`` hold neither ``correct`` nor ``logits``, or they don't align with ``labels``.
        """
        if not inputs or inputs.get("labels") is None:
            return
        labels, weights = inputs["labels"], inputs.get("loss_weights")
        counted = labels != IGNORE_INDEX
        if weights is not None:
            counted = counted & (weights != 0)
        self._correct.add((_correct(outputs or {}, labels, counted) & counted).sum())
        self._tokens.add(counted.sum())

    def state(self) -> AccuracyState:
        """The counts of this rank."""
        return AccuracyState(correct=self._correct.value(), tokens=self._tokens.value())

    def compute(self, states: list[Any]) -> Measurements:
        """The share over everything that the states hold."""
        measured = Measurements()
        if tokens := math.fsum(state["tokens"] for state in states):
            measured["accuracy"] = Measurement(math.fsum(state["correct"] for state in states) / tokens, "%")
        return measured

    def reset(self) -> None:
        """Forget the counts."""
        self._correct, self._tokens = Total(), Total()


def _correct(outputs: ModelOutput, labels: Tensor, counted: Tensor) -> Tensor:
    correct, logits = outputs.get("correct"), outputs.get("logits")
    if correct is None and logits is None:
        there = ", ".join(sorted(outputs)) or "nothing"
        raise ValueError(f"Accuracy needs 'correct' (or 'logits') in a model's outputs, which hold: {there}.")
    if correct is None:
        assert logits is not None
        correct = torch.zeros_like(counted)
        correct[counted] = logits.detach()[counted].argmax(-1) == labels[counted]
    if correct.shape != labels.shape:
        raise ValueError(
            f"Accuracy: 'correct' has the shape {list(correct.shape)}, labels have {list(labels.shape)}; they have to align."
        )
    return correct
