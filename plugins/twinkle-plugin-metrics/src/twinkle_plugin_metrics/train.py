"""Where training is and how fast it goes.

Numbers with units, formatted by whoever shows them. Measures time with the clock that it is given; knows nothing of losses.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from twinkle.data_format import Batch, ModelOutput
from twinkle.metric import Gather, Measurement, Measurements, Metric
from twinkle_plugin_metrics.total import Total

if TYPE_CHECKING:
    from torch import Tensor


class TrainState(TypedDict):
    """One rank's progress: ``tokens`` and ``samples`` were worked on within ``seconds``; ``elapsed`` is since it was made."""

    step: int | None
    lr: list[float]
    grad_norm: float | None
    elapsed: float
    seconds: float
    tokens: float
    samples: float


class TrainMetric(Metric):
    """``step``, ``lr``, ``grad_norm``, ``elapsed`` (s), ``tokens_per_second`` and ``samples_per_second``.

    - ``step``, ``lr`` and ``grad_norm`` are those of the last optimizer step; with parameter groups of different learning rates
      there are ``lr_0``, ``lr_1``, … in their place.
    - ``elapsed`` counts from when the metric was made, through resets: the time of the run.
    - Speeds are over all ranks and since the last reset; the very first micro-batch, which pays for warming up, isn't in them.
      Tokens are those that the model works on, labelled or not, without padding; samples are sequences, in packed rows too.

    What there is nothing to compute from (a speed before the second micro-batch, a step before the first) is left out.

    ``clock`` returns seconds that never go back.
    """

    def __init__(
        self, *, device_mesh: Any = None, gather: Gather | None = None, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        super().__init__(device_mesh=device_mesh, gather=gather)
        self._clock = clock
        self._made = clock()
        self._since: float | None = None  # None: nothing has run yet, so there is nothing to measure from
        self._step: int | None = None
        self._lr: list[float] = []
        self._grad_norm: Tensor | float | None = None
        self._tokens, self._samples = Total(), Total()

    def accumulate(
        self,
        inputs: Batch | None,
        outputs: ModelOutput | None,
        *,
        step: int | None = None,
        lr: float | Sequence[float] | None = None,
        grad_norm: Tensor | float | None = None,
        **kwargs: Any,
    ) -> None:
        """Count a micro-batch, or take in what an optimizer step gave."""
        if step is not None:
            self._step = step
        if lr is not None:
            self._lr = [float(rate) for rate in lr] if isinstance(lr, Sequence) else [float(lr)]
        if grad_norm is not None:
            self._grad_norm = grad_norm
        if not inputs:
            return
        if self._since is None:
            self._since = self._clock()
            return
        self._tokens.add(_count_tokens(inputs))
        self._samples.add(_count_samples(inputs))

    def state(self) -> TrainState:
        """The progress of this rank."""
        now = self._clock()
        return TrainState(
            step=self._step,
            lr=self._lr,
            grad_norm=None if self._grad_norm is None else float(self._grad_norm),
            elapsed=now - self._made,
            seconds=0.0 if self._since is None else now - self._since,
            tokens=self._tokens.value(),
            samples=self._samples.value(),
        )

    def compute(self, states: list[Any]) -> Measurements:
        """Progress from the first rank, which they share; speeds from all of them and the slowest's time."""
        measured = Measurements()
        first: TrainState = states[0]
        if first["step"] is not None:
            measured["step"] = Measurement(first["step"])
        rates = first["lr"]
        if len(set(rates)) == 1:
            measured["lr"] = Measurement(rates[0])
        else:
            measured.update({f"lr_{index}": Measurement(rate) for index, rate in enumerate(rates)})
        if first["grad_norm"] is not None:
            measured["grad_norm"] = Measurement(first["grad_norm"])
        measured["elapsed"] = Measurement(max(state["elapsed"] for state in states), "s")
        seconds = max(state["seconds"] for state in states)
        for what in ("tokens", "samples"):
            count = math.fsum(state[what] for state in states)
            if count and seconds > 0:
                measured[f"{what}_per_second"] = Measurement(count / seconds, f"{what}/s")
        return measured

    def reset(self) -> None:
        """Forget the last step and the counts; speeds are measured from now on."""
        if self._since is not None:
            self._since = self._clock()
        self._step, self._lr, self._grad_norm = None, [], None
        self._tokens, self._samples = Total(), Total()


def _count_tokens(inputs: Batch) -> Tensor | float:
    mask = inputs.get("attention_mask")
    return inputs["input_ids"].numel() if mask is None else mask.sum()


def _count_samples(inputs: Batch) -> Tensor | float:
    """Rows; in packed batches (positions and no mask) the sequences in them."""
    positions = inputs.get("position_ids")
    if positions is None or inputs.get("attention_mask") is not None:
        return inputs["input_ids"].shape[0]
    return (positions == 0).sum()
