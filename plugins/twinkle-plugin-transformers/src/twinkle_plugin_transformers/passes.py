"""Forward and backward passes of one adapter over rows: encode, collate, run, loss, gradient, metrics.

Keeps nothing of its own: what a pass leaves is in the adapter's state. Knows nothing of optimizers or checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from twinkle.data_format import LossOutput, ModelOutput
from twinkle.errors import ConfigError
from twinkle_plugin_transformers import steps
from twinkle_plugin_transformers.adapter import AdapterState, Pending
from twinkle_plugin_transformers.data_parallel import DataParallel
from twinkle_plugin_transformers.head import Needs
from twinkle_plugin_transformers.injection import AdapterSet
from twinkle_plugin_transformers.micro_batches import join_outputs, split_rows
from twinkle_plugin_transformers.outputs import ForwardPass, detached
from twinkle_plugin_transformers.precision import Precision


class Passes:
    """Runs one base model for whichever adapter a call is about."""

    def __init__(self, base: Any, adapters: AdapterSet, precision: Precision, parallel: DataParallel) -> None:
        self._base, self._adapters, self._parallel = base, adapters, parallel
        self.precision = precision
        self.forget_model()

    def forget_model(self) -> None:
        """The model has changed: find out anew how its head works."""
        self._run = ForwardPass(self._base, self.precision)

    def train(self, state: AdapterState, inputs: Any, temperature: float, loss_kwargs: Mapping[str, Any]) -> Pending:
        """A forward pass in training mode; it becomes the state's last."""
        needs = state.loss_needs()
        batch = state.processor(self._encoded(state, inputs))
        with self.running(state, training=True):
            wanted = needs | state.metric_needs(training=True)
            outputs = self._run(batch, wanted, graded=needs, temperature=temperature)
        state.train_pass = state.last_pass = passed = Pending(batch, outputs, loss_kwargs)
        return passed

    @torch.no_grad()
    def evaluate(
        self,
        state: AdapterState,
        inputs: Any,
        names: Sequence[str],
        *,
        disable_lora: bool,
        micro_batch_size: int | None,
        temperature: float,
        loss_kwargs: Mapping[str, Any],
    ) -> ModelOutput:
        """A forward pass in evaluation mode, giving the outputs in ``names``; it becomes the state's last."""
        asked = Needs.of(names)
        whole = self._encoded(state, inputs)
        batches = [state.processor(rows) for rows, _ in split_rows(whole, micro_batch_size, {})]
        has_labels = all(batch.get("labels") is not None for batch in batches)
        needs = asked | state.loss_needs() | state.metric_needs(training=False) if has_labels else asked
        with self.running(state, training=False, disable_lora=disable_lora):
            joined = join_outputs([self._run(batch, needs, temperature=temperature) for batch in batches])
        if state.eval_pass is not None:
            state.measure(state.eval_pass, training=False)
        batch = batches[0] if len(batches) == 1 else state.processor(whole)
        state.eval_pass = state.last_pass = Pending(batch, joined, loss_kwargs)
        return ModelOutput(**{name: joined[name] for name in names})  # type: ignore[literal-required,typeddict-item]

    def train_backward(
        self,
        state: AdapterState,
        inputs: Any,
        *,
        micro_batch_size: int | None,
        temperature: float,
        loss_kwargs: Mapping[str, Any],
    ) -> ModelOutput:
        """Forward, loss and backward over all pieces of a micro-step; returns detached outputs and ``loss``."""
        if not len(inputs) and self._parallel.size > 1:  # the end of the data: other ranks have rows, and wait for this one
            state.accumulation.skip()
            return ModelOutput(loss=0.0)
        pieces = split_rows(self._encoded(state, inputs), micro_batch_size, loss_kwargs)
        parts: list[ModelOutput] = []
        losses: list[LossOutput] = []
        # All are collated before the first is worked on: a bad row leaves no half of a gradient.
        for batch, extra in [(state.processor(rows), extra) for rows, extra in pieces]:
            passed = self.train(state, batch, temperature, extra)
            losses.append(self.loss(state, passed, {}))
            steps.backward(state, losses[-1], first=len(losses) == 1)
            passed.outputs = detached(passed.outputs)
            state.measure(passed, training=True)
            parts.append(passed.outputs)
        state.train_pass = None
        joined = join_outputs(parts)
        joined["loss"] = steps.joint_loss(losses)
        return joined

    def loss(self, state: AdapterState, passed: Pending, kwargs: Mapping[str, Any]) -> LossOutput:
        """The loss of a pass, kept with it. ``kwargs`` go to the loss, over those of the pass."""
        loss_output: LossOutput = state.loss(passed.batch, passed.outputs, **{**passed.loss_kwargs, **kwargs})
        passed.loss_output = loss_output
        return loss_output

    @contextmanager
    def running(self, state: AdapterState, *, training: bool, disable_lora: bool = False) -> Iterator[None]:
        """The model as ``state`` wants it for a forward pass; adapters are back afterwards, whatever happened inside."""
        self._adapters.activate(state.name)
        if self._base.training != training:
            self._base.train(training)
        if disable_lora:
            with self._adapters.disabled():
                yield
        else:
            yield

    def _encoded(self, state: AdapterState, inputs: Any) -> Any:
        """``inputs`` with trajectories made features.

        Raises:
            ConfigError: they are trajectories, and no template was set.
        """
        if isinstance(inputs, Mapping) or not inputs or "messages" not in inputs[0]:
            return inputs
        if state.template is None:
            raise ConfigError("These inputs are trajectories: call set_template('Template', model_id=…) first, or encode them.")
        return [feature for features in state.template.batch_encode(inputs) for feature in features]


def collect_outputs(results: Sequence[ModelOutput], device_mesh: Any = None) -> ModelOutput:
    """The outputs of data-parallel workers as one: rows in order, ``loss`` the mean over workers that had rows."""
    if device_mesh is not None and len(results) == device_mesh.world_size:
        results = [results[rank] for rank in device_mesh.data_representatives()]
    with_rows = [result for result in results if len(result) > 1] or list(results[:1])
    joined = join_outputs(with_rows)
    if "loss" in with_rows[0]:
        joined = ModelOutput(**joined)  # a single result is given back as it is, and isn't ours to change
        joined["loss"] = sum(float(result["loss"]) for result in with_rows) / len(with_rows)
    return joined
