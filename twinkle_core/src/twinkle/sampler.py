"""The sampler kind: completions from a model.

``Sampler`` is the contract; any other name is looked up among the installed plugins' samplers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from twinkle.component import component_attributes
from twinkle.data_format import InputFeature, SampleResponse, SamplingParams, Trajectory


class Sampler(ABC):
    """Samples completions of prompts."""

    @abstractmethod
    def sample(
        self,
        inputs: Sequence[Trajectory | InputFeature],
        sampling_params: SamplingParams | None = None,
        *,
        adapter_name: str = "",
        num_samples: int = 1,
        **kwargs: Any,
    ) -> list[SampleResponse]:
        """One response for each input, in order, with ``num_samples`` sequences each."""


__getattr__, __dir__ = component_attributes(__name__, ["sampler"], globals())
