"""Optimizers and schedules by name, class, reference or instance, with errors that say which options there are.

Names in ``torch.optim`` come first for optimizers; for schedules installed components come first, then
``torch.optim.lr_scheduler``. Knows nothing of models.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from twinkle.component import load_component
from twinkle.errors import ComponentNotFoundError, ConfigError
from twinkle.run_record import record_component


def build_optimizer(reference: object, parameters: Sequence[nn.Parameter], config: Mapping[str, Any]) -> torch.optim.Optimizer:
    """An optimizer over ``parameters``.

    Where the class has a fused implementation for them and the caller chose none, the fused one is used.

    Raises:
        ConfigError: unknown or unfit options, or an instance over other parameters.
        ComponentNotFoundError: nothing has that name; names the nearest.
    """
    if isinstance(reference, torch.optim.Optimizer):
        given = _checked_instance(reference, parameters, config)
        record_component("optimizer", reference, type(given), made=given, config=given.defaults)
        return given
    found = _find("optimizer", reference, torch.optim, torch.optim.Optimizer, torch_first=True)
    options = dict(config)
    has_fused = "fused" in inspect.signature(found).parameters and not {"fused", "foreach", "capturable"} & set(options)
    if has_fused and all(parameter.device.type in ("cpu", "cuda", "xpu", "mps") for parameter in parameters):
        options["fused"] = True
    made: torch.optim.Optimizer = _build("optimizer", found, list(parameters), options)
    record_component("optimizer", reference, found, made=made, config=config)
    return made


def build_scheduler(reference: object, optimizer: torch.optim.Optimizer, config: Mapping[str, Any]) -> Any:
    """A learning-rate schedule for ``optimizer``; errors as for ``build_optimizer``."""
    kind = torch.optim.lr_scheduler
    if isinstance(reference, kind.LRScheduler):
        if reference.optimizer is not optimizer or config:
            raise ConfigError(
                "A schedule that is already built has to belong to this adapter's optimizer, and takes no options here."
            )
        return reference
    found = _find("lr_scheduler", reference, kind, kind.LRScheduler, torch_first=False)
    made = _build("lr_scheduler", found, optimizer, dict(config))
    record_component("lr_scheduler", reference, found, made=made, config=config)
    return made


def _find(kind: str, reference: object, module: Any, base: type, *, torch_first: bool) -> Any:
    own = {
        name: value
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, base) and value is not base and not name.startswith("_")
    }
    if not isinstance(reference, str):
        return load_component(kind, reference)
    if torch_first and reference in own:
        return own[reference]
    try:
        return load_component(kind, reference)
    except ComponentNotFoundError as error:
        if reference in own:
            return own[reference]
        near = difflib.get_close_matches(reference, own, n=3, cutoff=0.5)
        hint = f" {module.__name__} has {', '.join(near)}." if near else f" {module.__name__} has {', '.join(sorted(own))}."
        raise ComponentNotFoundError(f"{error}{hint}") from None


def _build(kind: str, found: Any, first: Any, options: dict[str, Any]) -> Any:
    name = getattr(found, "__name__", repr(found))
    signature = inspect.signature(found)
    try:
        signature.bind(first, **options)
    except TypeError as error:
        known = ", ".join(list(signature.parameters)[1:])
        raise ConfigError(f"The {kind} {name} can't be built: {error}. Its options: {known}.") from None
    try:
        return found(first, **options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"The {kind} {name} can't be built: {error}") from error


def _checked_instance(
    optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], config: Mapping[str, Any]
) -> torch.optim.Optimizer:
    if config:
        raise ConfigError(f"This {type(optimizer).__name__} is already built; it takes no options here ({', '.join(config)}).")
    ours = {id(parameter) for parameter in parameters}
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if any(id(parameter) not in ours for parameter in held):
        raise ConfigError("This optimizer holds parameters that aren't trained by this adapter.")
    return optimizer
