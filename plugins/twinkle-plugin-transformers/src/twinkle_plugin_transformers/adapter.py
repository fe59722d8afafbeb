"""Everything that belongs to one adapter, or to the full parameters: one object, and nothing of it anywhere else.

Configuration, parameters, optimizer, schedule, loss, metrics, how rows are encoded and collated, and where the accumulation
stands. Knows nothing of the model that runs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from twinkle.data_format import Batch, LossOutput, ModelOutput
from twinkle.errors import ConfigError
from twinkle.metric import Measurements, Metric
from twinkle_plugin_transformers.head import Needs
from twinkle_plugin_transformers.precision import LossScale


@dataclass
class Pending:
    """One forward pass whose loss, or whose backward pass, is still to come. ``batch`` is None where this rank had no rows."""

    batch: Batch | None = None
    outputs: ModelOutput = field(default_factory=ModelOutput)
    loss_kwargs: Mapping[str, Any] = field(default_factory=dict)
    loss_output: LossOutput | None = None
    measured: bool = False


@dataclass
class Accumulation:
    """What was accumulated since the last optimizer step.

    ``tokens`` is the sum of ``LossOutput.num_tokens`` on this rank, or None where the loss isn't to be normalised.
    """

    micro_batches: int = 0
    empty: bool = True  # no loss was added yet
    tokens: torch.Tensor | float | None = 0.0
    normalised: bool = False
    grad_norm: float = 0.0

    def skip(self) -> None:
        """Count a micro-batch of which this rank has no rows."""
        self.micro_batches += 1

    def add(self, loss_output: LossOutput, *, first: bool = True) -> None:
        """Count the tokens of one piece of a micro-batch, and with its first piece the micro-batch.

        Raises:
            ConfigError: it is normalised and those before weren't, or the other way round.
        """
        tokens = loss_output["num_tokens"]
        if self.empty:
            self.tokens, self.empty = None if tokens is None else 0.0, False
        if (tokens is None) != (self.tokens is None):
            raise ConfigError(
                "Within one optimizer step the loss gave num_tokens for some micro-batches and None for others. Before another "
                "loss, finish the step: clip_grad_and_step(gradient_accumulation_steps=1)."
            )
        if tokens is not None and self.tokens is not None:
            self.tokens = self.tokens + (tokens.detach() if isinstance(tokens, torch.Tensor) else tokens)
        self.micro_batches += first


@dataclass
class AdapterState:
    """One adapter, or, with the name ``""``, the full parameters."""

    name: str
    loss: Any
    processor: Any
    parameters: list[nn.Parameter] = field(default_factory=list)
    template: Any = None
    config: Any = None
    optimizer: torch.optim.Optimizer | None = None
    scheduler: Any = None
    loss_scale: LossScale | None = None
    gradient_accumulation_steps: int = 1
    train_metrics: list[Metric] = field(default_factory=list)
    eval_metrics: list[Metric] = field(default_factory=list)
    accumulation: Accumulation = field(default_factory=Accumulation)
    train_pass: Pending | None = None
    eval_pass: Pending | None = None
    last_pass: Pending | None = None
    steps: int = 0
    schedule_due: bool = False

    def due(self, accumulation_steps: int | None = None) -> bool:
        """Whether the accumulated micro-batches make a whole step."""
        wanted = self.gradient_accumulation_steps if accumulation_steps is None else accumulation_steps
        return self.accumulation.micro_batches >= max(1, wanted)

    def loss_needs(self) -> Needs:
        """The outputs that the loss reads, which carry gradients. A plain function is taken to read log-probabilities."""
        loss = self.loss
        return Needs(
            logits=getattr(loss, "require_logits", False),
            logps=getattr(loss, "require_logps", True),
            mean_logps=getattr(loss, "require_mean_logps", False),
            entropies=getattr(loss, "require_entropy", False),
        )

    def metric_needs(self, *, training: bool) -> Needs:
        """The outputs that metrics read."""
        needs = Needs()
        for metric in self.metrics(training=training):
            needs |= Needs(logits=metric.require_logits, entropies=metric.require_entropy, correct=metric.require_correct)
        return needs

    def metrics(self, *, training: bool) -> list[Metric]:
        """The metrics of training or of evaluation."""
        return self.train_metrics if training else self.eval_metrics

    def measure(self, passed: Pending, *, training: bool) -> None:
        """Feed a pass to the metrics, once."""
        if passed.measured or passed.batch is None:
            return
        passed.measured = True
        extra: dict[str, Any] = {} if passed.loss_output is None else {"loss_output": passed.loss_output}
        for metric in self.metrics(training=training):
            metric.accumulate(passed.batch, passed.outputs, **extra)

    def measure_step(self, **values: Any) -> None:
        """Tell training's metrics what an optimizer step gave."""
        for metric in self.train_metrics:
            metric.accumulate(None, None, **values)

    def calculate(self, *, training: bool) -> Measurements:
        """The metrics' numbers, over all ranks, and begin anew."""
        if not training and self.eval_pass is not None:
            self.measure(self.eval_pass, training=False)
            self.eval_pass = None
        found = Measurements()
        for metric in self.metrics(training=training):
            found.update(metric.calculate())
            metric.reset()
        return found

    def zero_grad(self) -> None:
        """Forget the gradients and what was counted with them."""
        for parameter in self.parameters:
            parameter.grad = None
        self.accumulation = Accumulation()

    def learning_rates(self) -> list[float]:
        """The rate of each parameter group."""
        return [] if self.optimizer is None else [float(group["lr"]) for group in self.optimizer.param_groups]


def check_positive(name: str, value: Any) -> int:
    """``value`` as a positive number of steps or rows.

    Raises:
        ConfigError: it isn't one.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name} has to be a positive whole number, not {value!r}.")
    return value
