"""Forward and backward passes of one adapter over rows: encode, collate, run, loss, gradient, metrics.

Keeps nothing of its own: what a pass leaves is in the adapter's state. Knows nothing of optimizers or checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from twinkle.data_format import Batch, LossOutput, ModelOutput
from twinkle.errors import ConfigError
from twinkle_plugin_transformers import steps
from twinkle_plugin_transformers.adapter import AdapterState, Pending
from twinkle_plugin_transformers.data_parallel import DataParallel
from twinkle_plugin_transformers.head import Needs
from twinkle_plugin_transformers.injection import AdapterSet
from twinkle_plugin_transformers.micro_batches import collate, join_rows, narrowed, widened
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
        if self._has_none(inputs):
            state.train_pass = state.last_pass = passed = Pending()
            return passed
        batch = state.processor(self._encoded(state, inputs))
        return self._train(state, batch, temperature, loss_kwargs, cut=False)

    def _train(
        self, state: AdapterState, batch: Batch, temperature: float, loss_kwargs: Mapping[str, Any], *, cut: bool
    ) -> Pending:
        state.train_pass = state.last_pass = None  # what the last pass left would be kept beside this one's
        needs = state.loss_needs()
        wanted = needs | state.metric_needs(training=True)
        with self.running(state, training=True):
            outputs = self._forward(batch, wanted, needs, temperature, cut=cut)
        state.train_pass = state.last_pass = passed = Pending(batch, outputs, loss_kwargs)
        return passed

    def _forward(self, batch: Batch, needs: Needs, graded: Needs | None, temperature: float, *, cut: bool) -> ModelOutput:
        """Run the model; on a piece that was ``cut`` from a batch, without the padding that only other pieces' rows needed."""
        if not cut:
            return self._run(batch, needs, graded=graded, temperature=temperature)
        narrow, left, right = narrowed(batch)
        return widened(self._run(narrow, needs, graded=graded, temperature=temperature), left, right)

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
        if state.eval_pass is not None:
            state.measure(state.eval_pass, training=False)
        state.eval_pass = state.last_pass = None
        if self._has_none(inputs):
            state.last_pass = Pending()
            return ModelOutput()
        pieces = collate(self._encoded(state, inputs), state.processor, micro_batch_size, {})
        has_labels = pieces.whole.get("labels") is not None
        needs = asked | state.loss_needs() | state.metric_needs(training=False) if has_labels else asked
        with self.running(state, training=False, disable_lora=disable_lora):
            cut = len(pieces.parts) > 1
            joined = pieces.join([self._forward(batch, needs, None, temperature, cut=cut) for batch, _ in pieces.parts])
        state.eval_pass = state.last_pass = Pending(pieces.whole, joined, loss_kwargs)
        # The names are those of the TypedDict: ``asked`` refused any other.
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
        if self._has_none(inputs):
            state.accumulation.skip()
            return ModelOutput(loss=0.0)
        # All rows are collated before the first is worked on: a bad one leaves no half of a gradient.
        pieces = collate(self._encoded(state, inputs), state.processor, micro_batch_size, loss_kwargs)
        outputs: list[ModelOutput] = []
        losses: list[LossOutput] = []
        for batch, own in pieces.parts:
            passed = self._train(state, batch, temperature, own, cut=len(pieces.parts) > 1)
            losses.append(self.loss(state, passed, {}))
            steps.backward(state, losses[-1], first=len(losses) == 1)
            passed.outputs = detached(passed.outputs)
            state.measure(passed, training=True)
            outputs.append(passed.outputs)
        state.train_pass = None
        return ModelOutput(**{**pieces.join(outputs), "loss": steps.joint_loss(losses)})

    def loss(self, state: AdapterState, passed: Pending, kwargs: Mapping[str, Any]) -> LossOutput:
        """The loss of a pass, kept with it. ``kwargs`` go to the loss, over those of the pass.

        Raises:
            ConfigError: the pass was made for another loss, or what the loss returned is no ``LossOutput``.
        """
        if passed.batch is None:
            return LossOutput(loss=torch.zeros(()), num_tokens=0.0)
        name = getattr(state.loss, "__name__", type(state.loss).__name__)
        if missing := [needed for needed in state.loss_needs().names() if needed not in passed.outputs]:
            raise ConfigError(
                f"The loss {name} needs {', '.join(missing)}, which the last forward pass didn't give: set the loss before the "
                f"forward pass, and give rows with labels."
            )
        found = state.loss(passed.batch, passed.outputs, **{**passed.loss_kwargs, **kwargs})
        if not isinstance(found, Mapping) or not {"loss", "num_tokens"} <= found.keys() or not _is_scalar(found["loss"]):
            raise ConfigError(
                f"The loss {name} has to return LossOutput(loss=…, num_tokens=…): a tensor with one number, the sum, and over how "
                f"many tokens it is a sum (or None)."
            )
        loss_output: Any = found
        passed.loss_output = loss_output
        return passed.loss_output

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

    def _has_none(self, inputs: Any) -> bool:
        """Whether this rank has no rows, as at the end of the data, where others have some and wait for it."""
        return not len(inputs) and self._parallel.size > 1

    def _encoded(self, state: AdapterState, inputs: Any) -> Any:
        """``inputs`` with trajectories made features.

        Raises:
            ConfigError: they are trajectories, and no template was set.
        """
        if isinstance(inputs, Mapping) or not inputs or "messages" not in inputs[0] or "input_ids" in inputs[0]:
            return inputs
        if state.template is None:
            raise ConfigError("These inputs are trajectories: call set_template('Template', model_id=…) first, or encode them.")
        return [feature for features in state.template.batch_encode(inputs) for feature in features]


def collect_outputs(results: Sequence[ModelOutput], device_mesh: Any = None) -> ModelOutput:
    """The outputs of data-parallel workers as one: rows in order, ``loss`` the mean over workers that had rows."""
    if device_mesh is not None and len(results) == device_mesh.world_size:
        results = [results[rank] for rank in device_mesh.data_representatives()]
    with_rows = [result for result in results if result.keys() - {"loss"}] or list(results[:1])
    joined = join_rows(with_rows)
    if "loss" in with_rows[0]:
        joined = ModelOutput(**joined)  # a single result is given back as it is, and isn't ours to change
        joined["loss"] = sum(float(result["loss"]) for result in with_rows) / len(with_rows)
    return joined


def _is_scalar(value: Any) -> bool:
    return isinstance(value, Tensor) and value.numel() == 1
