"""The processor kind: rows to the tensors that a model takes.

``Processor`` is the contract; any other name is looked up among the installed plugins' processors. Knows nothing of models.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from twinkle.component import component_attributes
from twinkle.data_format import Batch, InputFeature


class Processor(ABC):
    """Collates encoded rows into one batch on a device, with labels shifted by one (see ``Batch``)."""

    @abstractmethod
    def __call__(self, rows: Sequence[InputFeature] | Mapping[str, Any]) -> Batch:
        """Collate. A mapping that already holds ``[B, T]`` tensors counts as collated and only moves to the device.

        Raises:
            DataError: a row lacks ``input_ids``, or its fields differ in length; names the row.
        """


__getattr__, __dir__ = component_attributes(__name__, ["processor"], globals())
