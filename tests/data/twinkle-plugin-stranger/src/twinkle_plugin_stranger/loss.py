"""A loss as a stranger would write it, against the public contract only."""

from typing import Any

from twinkle.data_format import IGNORE_INDEX, Batch, LossOutput, ModelOutput
from twinkle.loss import Loss


class StrangersLoss(Loss):
    """The negative log-likelihood, times ``scale``."""

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def __call__(self, inputs: Batch, outputs: ModelOutput, **kwargs: Any) -> LossOutput:
        labelled = inputs["labels"] != IGNORE_INDEX
        return LossOutput(loss=-self.scale * outputs["logps"][labelled].sum(), num_tokens=labelled.sum())
