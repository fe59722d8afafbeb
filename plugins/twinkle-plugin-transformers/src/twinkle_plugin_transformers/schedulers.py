"""Learning-rate schedules with a linear warmup.

The formulas are those of Transformers' ``get_cosine_schedule_with_warmup`` and ``get_linear_schedule_with_warmup``. A step is one
call of ``step()``, which a model makes once for each optimizer step: with accumulation, ``num_training_steps`` counts optimizer
steps, not micro-batches. State is plain numbers. Knows nothing of models.
"""

from __future__ import annotations

import math
from abc import abstractmethod

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from twinkle.errors import ConfigError


class WarmupScheduler(LRScheduler):
    """Multiplies each group's initial rate by a factor: ``step / num_warmup_steps`` first, then ``decay`` of the progress.

    The very first optimizer step therefore has a rate of 0 where there is a warmup, and the full rate where there is none.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        num_training_steps: int,
        num_warmup_steps: int = 0,
        min_lr_ratio: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        if num_training_steps < 1 or num_warmup_steps < 0:
            raise ConfigError(
                f"A warmup schedule needs num_training_steps >= 1 and num_warmup_steps >= 0, "
                f"not {num_training_steps} and {num_warmup_steps}."
            )
        if not 0 <= min_lr_ratio <= 1:
            raise ConfigError(f"min_lr_ratio has to be between 0 and 1, not {min_lr_ratio}.")
        self.num_training_steps = num_training_steps
        self.num_warmup_steps = num_warmup_steps
        self.min_lr_ratio = min_lr_ratio
        super().__init__(optimizer, last_epoch)

    @abstractmethod
    def decay(self, progress: float) -> float:
        """From the progress after warmup, 0 to 1, to the part of the rate that is left, 1 to 0."""

    def factor(self, step: int) -> float:
        """What the initial rate is multiplied by for the optimizer step with index ``step`` (from 0)."""
        if step < self.num_warmup_steps:
            return step / self.num_warmup_steps
        length = max(1, self.num_training_steps - self.num_warmup_steps)
        left = self.decay(min(1.0, (step - self.num_warmup_steps) / length))
        return self.min_lr_ratio + (1 - self.min_lr_ratio) * left

    def get_lr(self) -> list[float]:  # type: ignore[override]  # torch also allows rates that are tensors
        factor = self.factor(self.last_epoch)
        return [float(base) * factor for base in self.base_lrs]


class CosineWarmupScheduler(WarmupScheduler):
    """Linear warmup, then half a cosine down to ``min_lr_ratio`` of the rate (SGDR, arXiv:1608.03983, without restarts)."""

    def decay(self, progress: float) -> float:
        return max(0.0, 0.5 * (1 + math.cos(math.pi * progress)))


class LinearWarmupScheduler(WarmupScheduler):
    """Linear warmup, then a straight line down to ``min_lr_ratio`` of the rate."""

    def decay(self, progress: float) -> float:
        return 1 - progress
