"""In which number formats a model computes.

``mixed_precision`` is about accelerators: there ``"bf16"`` and ``"fp16"`` keep frozen weights in that format and compute in it
under autocast, while trained parameters stay in float32. On CPU every choice means float32 weights and products: bfloat16 gains
nothing there at the sizes that one trains on a CPU (a LoRA step of the 4.7M-parameter tiny model: 131 ms in float32, 132 ms in
bfloat16, without counting autocast's casts) and costs accuracy. Whoever wants another format of weights gives ``dtype``.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

import torch

from twinkle.errors import ConfigError

MixedPrecision = Literal["no", "bf16", "fp16"]

_FORMATS = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Precision:
    """The format of loaded weights, and that of autocast where there is one."""

    device_type: str
    weights: torch.dtype
    autocast: torch.dtype | None = None

    @classmethod
    def choose(cls, mixed_precision: str, device_type: str, dtype: torch.dtype | None = None) -> Precision:
        """What ``mixed_precision`` means on a device; ``dtype`` overrides the format of weights and turns autocast off.

        Raises:
            ConfigError: there is no such precision.
        """
        if mixed_precision not in get_args(MixedPrecision):
            raise ConfigError(f"mixed_precision has to be one of {', '.join(get_args(MixedPrecision))}, not {mixed_precision!r}.")
        if dtype is not None:
            return cls(device_type, dtype)
        if device_type == "cpu" or mixed_precision == "no":
            return cls(device_type, torch.float32)
        chosen = _FORMATS[mixed_precision]
        return cls(device_type, chosen, chosen)

    def context(self) -> AbstractContextManager[Any]:
        """The context of every forward pass."""
        return nullcontext() if self.autocast is None else torch.autocast(self.device_type, dtype=self.autocast)

    def loss_scale(self, config: Mapping[str, Any] | None) -> LossScale | None:
        """The loss scale that float16 needs; None for every other format.

        Raises:
            ConfigError: ``config`` holds an option that isn't one of a loss scale.
        """
        known = {option.name for option in fields(LossScale) if option.init}
        if unknown := sorted(set(config or {}) - known):
            raise ConfigError(f"grad_scaler_config doesn't take {', '.join(unknown)}. It takes {', '.join(sorted(known))}.")
        return LossScale(**(config or {})) if self.autocast == torch.float16 else None


@dataclass
class LossScale:
    """Dynamic loss scaling (Mixed Precision Training, arXiv:1710.03740), with the options and defaults of torch.amp.GradScaler."""

    init_scale: float = 65536.0
    growth_factor: float = 2.0
    backoff_factor: float = 0.5
    growth_interval: int = 2000
    scale: float = field(init=False)
    finite_steps: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.scale = self.init_scale

    def update(self, *, finite: bool) -> None:
        """Grow after ``growth_interval`` finite steps in a row, back off after one that wasn't."""
        self.finite_steps = self.finite_steps + 1 if finite else 0
        if not finite:
            self.scale *= self.backoff_factor
        elif self.finite_steps >= self.growth_interval:
            self.scale *= self.growth_factor
            self.finite_steps = 0
