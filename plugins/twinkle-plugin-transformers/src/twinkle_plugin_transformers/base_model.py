"""Loading the base model: from a folder or hub reference, or with random weights from a configuration.

Turns what went wrong into errors that name the reference. Code from model repositories is
never run unless the caller says so with Transformers' own ``trust_remote_code``. Knows nothing of adapters or training.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from twinkle.errors import ConfigError
from twinkle_plugin_transformers.precision import Precision


def resolve_model_class(model_cls: object) -> Any:
    """The Transformers class to load with: a class, or its name in ``transformers``.

    Raises:
        ConfigError: there is no such name, or it can't load models.
    """
    import transformers

    found = getattr(transformers, model_cls, None) if isinstance(model_cls, str) else model_cls
    if found is None or not hasattr(found, "from_pretrained"):
        raise ConfigError(f"model_cls {model_cls!r} is no model class of transformers. Give one, e.g. 'AutoModelForCausalLM'.")
    return found


def load_base_model(
    model_cls: Any,
    folder: Path | None,
    config: Any,
    *,
    precision: Precision,
    device: torch.device,
    seed: int,
    options: Mapping[str, Any],
) -> Any:
    """The model on its device, in evaluation mode.

    With a ``folder`` its weights; else random ones from ``config``, the same for the same ``seed`` on every rank. ``options`` go to
    ``from_pretrained`` or ``from_config``.

    Raises:
        ConfigError: neither folder nor configuration was given, or Transformers refuses them.
    """
    if folder is None and config is None:
        raise ConfigError("A model needs a model_id (a folder or hub reference) or a config (for random weights).")
    try:
        if folder is not None:
            extra = {} if config is None else {"config": _resolve_config(config)}
            model = model_cls.from_pretrained(folder, dtype=precision.weights, **extra, **options)
        else:
            model = _random_model(model_cls, _resolve_config(config), precision.weights, seed, options)
    except (OSError, ValueError, TypeError, KeyError) as error:
        source = folder if folder is not None else type(config).__name__
        raise ConfigError(f"The model can't be loaded from {source}: {error}") from error
    model = model.to(device)
    model.eval()
    return model


def _random_model(model_cls: Any, config: Any, dtype: torch.dtype, seed: int, options: Mapping[str, Any]) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if hasattr(model_cls, "from_config"):
            return model_cls.from_config(config, dtype=dtype, **options)
        return model_cls._from_config(config, dtype=dtype, **options)  # concrete classes have no public spelling of it


def _resolve_config(config: Any) -> Any:
    from transformers import AutoConfig, PretrainedConfig

    from twinkle.hub import download_model

    if isinstance(config, PretrainedConfig):
        return config
    if isinstance(config, (str, Path)):
        return AutoConfig.from_pretrained(download_model(str(config)))
    raise ConfigError(f"config has to be a transformers configuration, a folder or a hub reference, not {type(config).__name__}.")
