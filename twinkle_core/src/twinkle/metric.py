"""The metric kind: numbers that describe training, merged rightly over micro-batches and ranks.

``Metric`` is the contract, ``Measurement`` a number with its unit that is formatted only when it is shown. Any other name is
looked up among the installed plugins' metrics. Knows nothing of models.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twinkle.component import component_attributes
from twinkle.data_format import Batch, ModelOutput

if TYPE_CHECKING:
    from twinkle.device_mesh import DeviceMesh

_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


class Measurement(float):
    """A float with a unit (``"s"``, ``"tokens/s"``, ``"nats"``, ``"%"``, or ``""``). Arithmetic gives plain floats."""

    unit: str

    def __new__(cls, value: float, unit: str = "") -> Measurement:
        made = super().__new__(cls, value)
        made.unit = unit
        return made

    def __reduce__(self) -> tuple[type[Measurement], tuple[float, str]]:
        return type(self), (float(self), self.unit)

    def __repr__(self) -> str:
        value = float(self)
        if self.unit == "%":
            return f"{100 * value:.1f} %"
        text, prefix = f"{value:.4g}", ""
        if "/s" in self.unit:
            for factor, letter in _PREFIXES:
                if abs(value) >= 10 * factor:
                    text, prefix = f"{value / factor:.3g}", letter
                    break
        return f"{text} {prefix}{self.unit}".strip()

    __str__ = __repr__


class Measurements(dict[str, Measurement]):
    """Named measurements; ``str()`` of them is one line for people, the values are numbers for programs."""

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.items())


Gather = Callable[[Any], list[Any]]
"""From this rank's value to the list of every data-parallel rank's value, in order of rank."""


class Metric(ABC):
    """Accumulates over micro-batches, merges over data-parallel ranks, and gives numbers.

    ``merge`` and ``state`` make it independent of how ranks talk: ``calculate`` gathers each rank's ``state()``, merges them and
    computes from the whole; so the result over shards equals the result over everything.

    The ``require_*`` flags say which outputs the model has to make for it, as a loss's do: those that the loss doesn't ask for
    are made, without a gradient, only where a metric does. They may be set on the instance where they depend on configuration.
    """

    require_logits: bool = False
    require_correct: bool = False
    require_entropy: bool = False

    def __init__(self, *, device_mesh: DeviceMesh | None = None, gather: Gather | None = None) -> None:
        self.device_mesh = device_mesh
        self.gather: Gather = gather or (lambda value: [value])

    @abstractmethod
    def accumulate(self, inputs: Batch | None, outputs: ModelOutput | None, **kwargs: Any) -> None:
        """Take in one micro-batch, or what an optimizer step gave.

        A model calls it after each micro-batch with ``loss_output`` (the ``LossOutput``), and after each optimizer step with
        ``None`` for inputs and outputs and ``step``, ``lr`` and ``grad_norm``. Take what you know from ``kwargs``, ignore the rest.
        """

    @abstractmethod
    def state(self) -> Any:
        """What was accumulated here, as plain picklable data (numbers, lists, dictionaries)."""

    @abstractmethod
    def compute(self, states: list[Any]) -> Measurements:
        """The numbers from every rank's ``state()``. Pure: changes nothing here."""

    @abstractmethod
    def reset(self) -> None:
        """Forget what was accumulated."""

    def calculate(self) -> Measurements:
        """The numbers since the last ``reset``, over all ranks. Every rank has to call it."""
        return self.compute(self.gather(self.state()))


__getattr__, __dir__ = component_attributes(__name__, ["metric"], globals())
