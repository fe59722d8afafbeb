"""Loading the base model: from a folder or hub reference, or with random weights from a configuration.

Turns what went wrong into errors that name the reference, and takes no weights that are damaged, incomplete or pickled. Code from
model repositories runs only where the caller asks for it (``trust_remote_code``) and the registry's door allows it. Knows nothing
of adapters or training.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from twinkle.errors import ConfigError, TrustError
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
    reference: str | None = None,
) -> Any:
    """The model on its device, in evaluation mode.

    With a ``folder`` its weights; else random ones from ``config``, the same for the same ``seed`` on every rank. ``options`` go to
    ``from_pretrained`` or ``from_config``. ``reference`` is what ``folder`` was fetched as: the owner of its code.

    Raises:
        ConfigError: neither folder nor configuration was given, Transformers refuses them, or the folder's weights are damaged or
            incomplete; names the file or the tensors.
        TrustError: ``trust_remote_code`` was asked for, and nothing allows the model's own code to be executed.
    """
    if folder is None and config is None:
        raise ConfigError("A model needs a model_id (a folder or hub reference) or a config (for random weights).")
    # Never asked on a terminal, and never a pickle: both are decided here, not by what a repository holds.
    options = {"trust_remote_code": False, **options}
    source = folder if folder is not None else type(config).__name__
    if options["trust_remote_code"]:
        _authorize_own_code(folder, config, reference or str(source))
    try:
        if folder is not None:
            model = _saved_model(model_cls, folder, config, precision.weights, options)
        else:
            model = _random_model(model_cls, _resolve_config(config), precision.weights, seed, options)
    except SafetensorError as error:
        raise ConfigError(f"The model can't be loaded from {source}: {_damaged_files(folder)}: {error}. Fetch it again.") from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"The model can't be loaded from {source}: {error}") from error
    model = model.to(device)
    model.eval()
    return model


def _authorize_own_code(folder: Path | None, config: Any, reference: str) -> None:
    """Code that a model's repository brings passes the one door that all code from hubs passes."""
    from twinkle.component import default_registry
    from twinkle_registry.trust import LoadRequest

    if config is not None and _names_another_repository(_resolve_config(config).to_dict()):
        raise _from_elsewhere(reference, "the config: auto_map")
    if folder is None:
        request = LoadRequest("hub", f"{reference} (trust_remote_code)", "model", repository=reference)
        default_registry().authorize(request)
        return
    for file in sorted(folder.glob("*config.json")):
        try:
            elsewhere = _names_another_repository(json.loads(file.read_bytes()))
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(
                f"The model can't be loaded from {folder}: {file.name} is damaged: {error}. Fetch it again."
            ) from error
        if elsewhere:
            raise _from_elsewhere(reference, f"{file}: auto_map")
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        raise _from_elsewhere(reference, f"{folder / 'adapter_config.json'}: base_model_name_or_path")
    default_registry().authorize_folder("model", reference, folder)


def _names_another_repository(settings: Any) -> bool:
    """Whether an ``auto_map`` anywhere in ``settings`` names code as transformers names another repository's: ``owner/name--…``."""
    if isinstance(settings, list):
        return any(map(_names_another_repository, settings))
    if not isinstance(settings, dict):
        return False
    return "--" in json.dumps(settings.get("auto_map")) or any(map(_names_another_repository, settings.values()))


def _from_elsewhere(reference: str, place: str) -> TrustError:
    return TrustError(
        f"{reference} (trust_remote_code) takes its code from another repository ({place}), which nobody can review with it. Fetch "
        "a model that holds its own code, or copy the code into it."
    )


def _saved_model(model_cls: Any, folder: Path, config: Any, dtype: torch.dtype, options: Mapping[str, Any]) -> Any:
    extra = {} if config is None else {"config": _resolve_config(config)}
    model, loading = model_cls.from_pretrained(
        folder, dtype=dtype, output_loading_info=True, **{"use_safetensors": True, **extra, **options}
    )
    missing = sorted(loading["missing_keys"])
    if missing and model.can_generate():  # a language model has no new head that training would have to make
        shown = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        raise ValueError(
            f"its weights lack {len(missing)} tensors of this architecture: {shown}. Training would start from noise there."
        )
    return model


def _damaged_files(folder: Path | None) -> str:
    damaged = []
    for file in sorted(folder.glob("*.safetensors")) if folder is not None else []:
        try:
            with safe_open(file, framework="pt"):
                pass
        except SafetensorError:
            damaged.append(file.name)
    return f"damaged or cut short: {', '.join(damaged)}" if damaged else "its weights can't be read"


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
        return AutoConfig.from_pretrained(download_model(str(config)), trust_remote_code=False)
    raise ConfigError(f"config has to be a transformers configuration, a folder or a hub reference, not {type(config).__name__}.")
