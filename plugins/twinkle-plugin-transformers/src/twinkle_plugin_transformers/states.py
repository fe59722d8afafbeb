"""The states of a model's adapters, by name: made, found, and refused with a list of those that are there.

Knows what a new state begins with (loss, processor, metrics); knows nothing of forward passes or checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from twinkle.component import make_component
from twinkle.errors import AdapterError, ConfigError
from twinkle_plugin_transformers.adapter import AdapterState, check_positive
from twinkle_plugin_transformers.checkpoint import read_adapter
from twinkle_plugin_transformers.injection import AdapterSet
from twinkle_plugin_transformers.precision import LossScale


class AdapterStates:
    """One state for each adapter of a model, or one, named ``""``, for its full parameters."""

    def __init__(
        self,
        base: nn.Module,
        adapters: AdapterSet,
        *,
        device: torch.device,
        gather: Callable[[Any], list[Any]],
        loss_scale: Callable[[], LossScale | None],
    ) -> None:
        self._base, self._adapters = base, adapters
        self._device, self._gather, self._loss_scale = device, gather, loss_scale
        self._states: dict[str, AdapterState] = {}

    def add(self, name: str, config_or_dir: Any, *, gradient_accumulation_steps: int) -> None:
        """Add an adapter to the model; see ``TransformersModel.add_adapter_to_model``."""
        if not name or not name.isidentifier():
            raise ConfigError(f"An adapter's name has to be made of letters, digits and underscores, not {name!r}.")
        if name in self._states:
            raise AdapterError(f"There is an adapter {name!r} already. {self._listed()}")
        full = self._states.get("")
        if full is not None and (full.optimizer is not None or full.accumulation.micro_batches):
            raise AdapterError("The full parameters of this model are being trained; an adapter can't be added to it any more.")
        accumulation = check_positive("gradient_accumulation_steps", gradient_accumulation_steps)
        state = self._new(name)
        config, weights = read_adapter(config_or_dir)
        state.parameters = self._adapters.add(name, config, weights, None if weights is None else Path(str(config_or_dir)))
        state.config = self._adapters.config(name)
        state.gradient_accumulation_steps = accumulation
        if full is not None:  # what was chosen before there was an adapter holds for it
            state.loss, state.processor, state.template = full.loss, full.processor, full.template
            state.train_metrics, state.eval_metrics = full.train_metrics, full.eval_metrics
            del self._states[""]
        self._states[name] = state

    def find(self, name: str) -> AdapterState:
        """The state that a call with ``adapter_name=name`` is about.

        Raises:
            AdapterError: no adapter has that name, or there are several and none was named.
        """
        if name:
            if name not in self._states:
                raise AdapterError(f"There is no adapter {name!r}. {self._listed()}")
            return self._states[name]
        if len(self._states) > 1:
            raise AdapterError(f"Which adapter? Give adapter_name. {self._listed()}")
        if not self._states:
            full = self._states[""] = self._new("")
            full.parameters = [parameter for parameter in self._base.parameters() if parameter.requires_grad]
        return next(iter(self._states.values()))

    def attach_metric(self, state: AdapterState, reference: object, config: Mapping[str, Any], *, training: bool) -> None:
        """Add a metric that gathers over this model's ranks."""
        metric = make_component("metric", reference, **config)
        metric.gather = self._gather
        state.metrics(training=training).append(metric)

    def _new(self, name: str) -> AdapterState:
        """A state with everything but parameters."""
        state = AdapterState(
            name=name,
            loss=make_component("loss", "CrossEntropyLoss"),
            processor=make_component("processor", "InputProcessor", device=self._device),
            loss_scale=self._loss_scale(),
        )
        for metric, training in (("LossMetric", True), ("TrainMetric", True), ("LossMetric", False)):
            self.attach_metric(state, metric, {}, training=training)
        return state

    def _listed(self) -> str:
        names = [name for name in self._states if name]
        return f"Adapters: {', '.join(names)}." if names else "This model has no adapters; add one with add_adapter_to_model."
