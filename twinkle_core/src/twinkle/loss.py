"""The loss kind: a number to minimise from a model's outputs.

``Loss`` is the contract; any other name is looked up among the installed plugins' losses. Knows nothing of models or devices.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from twinkle.component import component_attributes
from twinkle.data_format import Batch, LossOutput, ModelOutput


class Loss(ABC):
    """From a batch and a model's outputs to a sum and what it is a sum over.

    The ``require_*`` flags say which outputs the model has to make; nothing else is computed. They may be set on the instance in
    ``__init__`` where they depend on the configuration. A loss keeps no state from one call to the next.
    """

    require_logits: bool = False
    require_logps: bool = True
    require_mean_logps: bool = False
    require_entropy: bool = False

    @abstractmethod
    def __call__(self, inputs: Batch, outputs: ModelOutput, **kwargs: Any) -> LossOutput:
        """Return the loss of this (micro-)batch.

        ``inputs["labels"]`` (shifted, ``[B, T]``) aligns with ``outputs["logps"]``. ``kwargs`` are what the caller gave to
        ``forward_backward`` beside the inputs (``old_logps``, ``advantages``, …), each already sliced to this micro-batch.

        Raises:
            ValueError: something that the loss needs is missing or has a wrong shape, or a keyword is unknown.
        """


__getattr__, __dir__ = component_attributes(__name__, ["loss"], globals())
