"""The mean loss, as the optimizer sees it, and perplexity.

Sums what losses return and divides once, at the end: by the number of tokens, not by the number of micro-batches. Knows nothing of
what the loss is.
"""

from __future__ import annotations

import math
from typing import Any, TypedDict

from twinkle.data_format import Batch, LossOutput, ModelOutput
from twinkle.metric import Gather, Measurement, Measurements, Metric
from twinkle_plugin_metrics.total import Total

_PERPLEXITY_LIMIT = 700.0  # exp() of more overflows float64


class LossState(TypedDict):
    """One rank's sums. ``plain`` is the sum of losses that aren't to be normalised, ``normalised`` that of all others."""

    normalised: float
    num_tokens: float
    plain: float
    plain_batches: int
    steps: int
    nll: float
    nll_tokens: float


class LossMetric(Metric):
    """``loss``, in nats for a token, and ``ppl``; for losses that aren't normalised ``loss_sum``.

    - ``loss = sum(loss) / sum(num_tokens)`` over all micro-batches and ranks since the last reset: a micro-batch with more tokens
      counts for more, as in the optimizer's step. It is what the loss optimizes, with its smoothing and weights.
    - ``loss_sum``: where the loss gives ``num_tokens=None``, the sum over micro-batches and ranks of one optimizer step; without a
      step (evaluation), of everything.
    - ``ppl = exp(sum(nll) / sum(nll_tokens))`` where the loss reports both in its ``metrics``, as ``CrossEntropyLoss`` does: the
      perplexity of the labelled text, whatever the loss does with it.

    What there is nothing to compute from is left out.
    """

    def __init__(self, *, device_mesh: Any = None, gather: Gather | None = None) -> None:
        super().__init__(device_mesh=device_mesh, gather=gather)
        self.reset()

    def accumulate(
        self,
        inputs: Batch | None,
        outputs: ModelOutput | None,
        *,
        loss_output: LossOutput | None = None,
        step: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Take in the ``loss_output`` of a micro-batch, or count an optimizer ``step``."""
        if step is not None:
            self._steps += 1
        if loss_output is None:
            return
        if loss_output["num_tokens"] is None:
            self._plain.add(loss_output["loss"])
            self._plain_batches += 1
        else:
            self._normalised.add(loss_output["loss"])
            self._num_tokens.add(loss_output["num_tokens"])
        reported = loss_output.get("metrics", {})
        if "nll" in reported and "nll_tokens" in reported:
            self._nll.add(reported["nll"])
            self._nll_tokens.add(reported["nll_tokens"])

    def state(self) -> LossState:
        """The sums of this rank."""
        return LossState(
            normalised=self._normalised.value(),
            num_tokens=self._num_tokens.value(),
            plain=self._plain.value(),
            plain_batches=self._plain_batches,
            steps=self._steps,
            nll=self._nll.value(),
            nll_tokens=self._nll_tokens.value(),
        )

    def compute(self, states: list[Any]) -> Measurements:
        """The means over everything that the states hold."""
        measured = Measurements()
        if tokens := math.fsum(state["num_tokens"] for state in states):
            measured["loss"] = Measurement(math.fsum(state["normalised"] for state in states) / tokens, "nats")
        if any(state["plain_batches"] for state in states):
            steps = max(state["steps"] for state in states)  # ranks step together
            measured["loss_sum"] = Measurement(math.fsum(state["plain"] for state in states) / max(steps, 1), "nats")
        if tokens := math.fsum(state["nll_tokens"] for state in states):
            nll = math.fsum(state["nll"] for state in states) / tokens
            measured["ppl"] = Measurement(math.exp(nll) if nll < _PERPLEXITY_LIMIT else math.inf)
        return measured

    def reset(self) -> None:
        """Forget the sums."""
        self._normalised, self._num_tokens, self._plain = Total(), Total(), Total()
        self._nll, self._nll_tokens = Total(), Total()
        self._plain_batches = self._steps = 0
