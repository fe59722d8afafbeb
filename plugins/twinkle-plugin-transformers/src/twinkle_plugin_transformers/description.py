"""What a run is configured with, in words: for logs and for people."""

from __future__ import annotations

from typing import Any

from twinkle_plugin_transformers.adapter import AdapterState
from twinkle_plugin_transformers.precision import Precision


def describe(state: AdapterState, base: Any, *, model_id: str | None, precision: Precision, ranks: int) -> str:
    """One line for each thing that was chosen."""
    trained = sum(parameter.numel() for parameter in state.parameters)
    total = sum(parameter.numel() for parameter in base.parameters())
    number_format = str(precision.weights).removeprefix("torch.")
    autocast = "" if precision.autocast is None else f", computing in {str(precision.autocast).removeprefix('torch.')}"
    lines = {
        "model": f"{type(base).__name__} {model_id or '(random weights)'}, {total:,} parameters in {number_format}{autocast}",
        "device": f"{precision.device_type}, {ranks} data-parallel rank{'s' * (ranks != 1)}",
        "trained": f"{trained:,} parameters ({100 * trained / max(total, 1):.2f} %): {_trained(state)}",
        "loss": _named(state.loss),
        "optimizer": _optimizer(state),
        "lr scheduler": _scheduler(state.scheduler),
        "accumulation": f"{state.gradient_accumulation_steps} micro-batches a step",
        "metrics": ", ".join(_named(metric) for metric in state.train_metrics),
    }
    width = max(map(len, lines))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in lines.items())


def _trained(state: AdapterState) -> str:
    config = state.config
    if config is None:
        return "all weights"
    rank = getattr(config, "r", None)
    details = "" if rank is None else f" of rank {rank}, alpha {getattr(config, 'lora_alpha', '?')}"
    return f"adapter {state.name!r}, {getattr(config.peft_type, 'value', config.peft_type)}{details}"


def _optimizer(state: AdapterState) -> str:
    if state.optimizer is None:
        return "none yet"
    shown = {"lr", "betas", "eps", "momentum", "weight_decay"}
    group = state.optimizer.param_groups[0]
    options = {name: value for name, value in group.items() if name in shown}
    options["lr"] = group.get("initial_lr", group["lr"])  # a schedule has changed "lr" already
    return f"{type(state.optimizer).__name__}({', '.join(f'{name}={value!r}' for name, value in options.items())})"


def _scheduler(scheduler: Any) -> str:
    if scheduler is None:
        return "constant"
    options = {name: value for name, value in vars(scheduler).items() if name.startswith("num_") or name == "min_lr_ratio"}
    return f"{type(scheduler).__name__}({', '.join(f'{name}={value!r}' for name, value in options.items())})"


def _named(component: Any) -> str:
    return getattr(component, "__name__", type(component).__name__)
