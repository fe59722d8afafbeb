"""What a checkpoint is of, for its bill of materials: the model, the adapter, and the components that trained it.

Turns one adapter's state into plain data and a list of components; ``twinkle.run_record`` knows what those were made from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twinkle.run_sources import portable_path
from twinkle_plugin_transformers.adapter import AdapterState


def model_details(state: AdapterState, base: Any, model_id: str | None) -> dict[str, Any]:
    """The model and what of it is trained, as plain data; of a model with random weights its configuration."""
    local = model_id is not None and "://" not in model_id and Path(model_id).expanduser().exists()
    return {
        "class": type(base).__name__,
        "reference": portable_path(model_id) if local and model_id is not None else model_id,
        "config": base.config.to_diff_dict() if model_id is None else None,
        "dtype": next(base.parameters()).dtype,
        "adapter": None if state.config is None else {"name": state.name, **_adapter_config(state.config)},
        "gradient_accumulation_steps": state.gradient_accumulation_steps,
        "steps": state.steps,
    }


def used_components(state: AdapterState) -> list[tuple[str, Any]]:
    """Kind and instance of everything that was chosen for an adapter."""
    chosen = [
        ("loss", state.loss),
        ("template", state.template),
        ("processor", state.processor),
        ("optimizer", state.optimizer),
        ("lr_scheduler", state.scheduler),
        *(("metric", metric) for metric in (*state.train_metrics, *state.eval_metrics)),
    ]
    return [(kind, component) for kind, component in chosen if component is not None]


def _adapter_config(config: Any) -> dict[str, Any]:
    """PEFT's configuration, but for the base model's place, which the model's own entry gives."""
    return {key: value for key, value in config.to_dict().items() if key != "base_model_name_or_path"}
