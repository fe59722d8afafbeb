"""The optimizer step of one adapter: reduce, normalise, clip, step, schedule.

Every rank calls these together. A step whose gradient isn't finite changes no weight: it is dropped on all ranks alike, and said in
the log. Knows nothing of models.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import torch

from twinkle.data_format import LossOutput
from twinkle.errors import ConfigError
from twinkle_plugin_transformers.adapter import AdapterState
from twinkle_plugin_transformers.data_parallel import DataParallel
from twinkle_plugin_transformers.gradients import normalise_and_clip, reduce_gradients

_log = logging.getLogger("twinkle.model")


def backward(state: AdapterState, loss_output: LossOutput, *, first: bool = True) -> None:
    """Accumulate the gradients of a loss. ``first``: it is the first piece of a micro-batch.

    Raises:
        ConfigError: the gradients were already made a step's, or the loss's normalisation changed within the step.
    """
    if state.accumulation.normalised:
        raise ConfigError(
            f"{described(state)}: the gradients were clipped for a step; call step and zero_grad before the next backward."
        )
    state.accumulation.add(loss_output, first=first)
    loss = loss_output["loss"]
    if loss.requires_grad:  # a batch without any label has nothing to go back to
        (loss if state.loss_scale is None else loss * state.loss_scale.scale).backward()
    loss_output["loss"] = loss.detach()


def joint_loss(outputs: Sequence[LossOutput]) -> torch.Tensor:
    """The loss of several pieces as one mean (or, where it isn't normalised, one sum); stays on its device."""
    total = torch.stack([output["loss"].detach() for output in outputs]).sum()
    counts = [output["num_tokens"] for output in outputs]
    if any(count is None for count in counts):
        return total
    tokens = torch.stack([torch.as_tensor(count, device=total.device, dtype=total.dtype) for count in counts]).sum()
    return total / torch.where(tokens == 0, 1.0, tokens)


def clip(state: AdapterState, parallel: DataParallel, max_grad_norm: float | None) -> float:
    """Make the accumulated sum of gradients the step's gradient; returns its norm before clipping. Once for each step."""
    accumulation = state.accumulation
    if accumulation.normalised:
        return accumulation.grad_norm
    reduce_gradients(state.parameters, parallel)
    total = _total_tokens(accumulation.tokens, parallel, state.parameters[0].device)
    if state.loss_scale is not None:
        total *= state.loss_scale.scale
    accumulation.grad_norm = normalise_and_clip(state.parameters, total, max_grad_norm)
    accumulation.normalised = True
    return accumulation.grad_norm


def step(state: AdapterState, parallel: DataParallel) -> None:
    """An optimizer step with the accumulated gradients, clipped before or not.

    Raises:
        ConfigError: no optimizer was chosen.
    """
    if state.optimizer is None:
        raise ConfigError(f"{described(state)} has no optimizer. Call set_optimizer('AdamW', lr=…) first.")
    norm = clip(state, parallel, None)
    if state.loss_scale is not None:
        state.loss_scale.update(finite=math.isfinite(norm))
    if not math.isfinite(norm):
        _log.warning(
            "%s: gradient norm %s after %d steps; this step is dropped, no weight changes.", described(state), norm, state.steps
        )
        return
    lr = state.learning_rates()
    state.optimizer.step()
    state.steps += 1
    state.schedule_due = True
    state.measure_step(step=state.steps, lr=lr, grad_norm=norm)
    parallel.runtime.hooks.end_step(state.steps, grad_norm=norm, learning_rates=lr)


def advance_schedule(state: AdapterState) -> None:
    """A step of the learning-rate schedule, once for each optimizer step that was made."""
    if state.schedule_due and state.scheduler is not None:
        state.scheduler.step()
    state.schedule_due = False


def described(state: AdapterState) -> str:
    """The adapter for people."""
    return f"Adapter {state.name!r}" if state.name else "The model (full parameters)"


def _total_tokens(tokens: torch.Tensor | float | None, parallel: DataParallel, device: torch.device) -> float:
    """What the gradient's sum is divided by, over all ranks; 1 where the loss isn't to be normalised.

    A rank that had no rows doesn't know which of the two it is, so both numbers go round.
    """
    precise = torch.float64 if device.type == "cpu" else torch.float32
    counts = torch.zeros(2, dtype=precise, device=device)
    counts[1 if tokens is None else 0] = 1.0 if tokens is None else tokens
    parallel.all_reduce_sum(counts)
    total, unnormalised = counts.tolist()
    return 1.0 if unnormalised else float(total)
