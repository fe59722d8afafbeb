"""Checkpoints of a model: which files, in whose formats.

Adapters are in PEFT's own format (``adapter_model.safetensors``, ``adapter_config.json``) and full models in Transformers'
(``save_pretrained``), so other tools read them; beside them lie the training state and the index. Leans on ``checkpoint_folder`` for
writing whole folders and on ``trainer_state`` for everything but weights.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig
from safetensors.torch import save_file
from torch import Tensor, nn

from twinkle.errors import CheckpointError, ConfigError
from twinkle.hub import download_model
from twinkle_plugin_transformers.adapter import AdapterState
from twinkle_plugin_transformers.checkpoint_folder import read_tensors
from twinkle_plugin_transformers.injection import AdapterSet

ADAPTER_WEIGHTS = "adapter_model.safetensors"
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
)


def read_adapter(config_or_dir: Any) -> tuple[Any, dict[str, Tensor] | None]:
    """A PEFT configuration as it is, or the one in a folder or hub reference together with its weights.

    Raises:
        CheckpointError: the folder holds no adapter, or a damaged one.
    """
    if not isinstance(config_or_dir, (str, Path)):
        return config_or_dir, None
    folder = download_model(str(config_or_dir))
    if not (folder / "adapter_config.json").is_file():
        raise CheckpointError(f"{config_or_dir} holds no PEFT adapter: there is no adapter_config.json in {folder}.")
    try:
        config = PeftConfig.from_pretrained(str(folder))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{folder / 'adapter_config.json'} can't be read: {error}") from error
    config.inference_mode = False
    return config, read_tensors(folder / ADAPTER_WEIGHTS)


def write_weights(
    folder: Path, base: Any, adapters: AdapterSet, state: AdapterState, source: Path | None, model_id: str | None
) -> None:
    """Write the weights that ``state`` trains; a full model also with its tokenizer, where the folder it came from has one."""
    if state.name:
        tensors = {name: value.detach().cpu().contiguous() for name, value in adapters.state_dict(state.name).items()}
        save_file(tensors, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
        config = copy.deepcopy(adapters.config(state.name))
        config.inference_mode = True  # as PEFT itself saves it
        config.base_model_name_or_path = model_id
        config.save_pretrained(str(folder))
        return
    base.save_pretrained(folder)
    for name in _TOKENIZER_FILES:
        if source is not None and (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


class ReadWeights:
    """Weights of a checkpoint, read and found fit for the model; ``apply`` takes them over."""

    def __init__(self, folder: Path, base: nn.Module, adapters: AdapterSet, state: AdapterState) -> None:
        """Read and check; changes nothing.

        Raises:
            CheckpointError: they are missing, cut short, or another model's.
        """
        self._base, self._adapters, self._name = base, adapters, state.name
        if state.name:
            self._tensors = read_tensors(folder / ADAPTER_WEIGHTS)
            adapters.check_state(state.name, self._tensors, folder)
        else:
            self._tensors = _read_full(folder, base)

    def apply(self) -> None:
        """Make them the model's."""
        if self._name:
            self._adapters.load_state(self._name, self._tensors)
            return
        with torch.no_grad():
            for name, value in self._base.state_dict().items():
                value.copy_(self._tensors[name])


def _read_full(folder: Path, base: Any) -> Mapping[str, Any]:
    """The weights of a full model, read by the model's own class, which knows how it maps files to parameters."""
    if (folder / "adapter_config.json").is_file():
        raise CheckpointError(f"{folder} holds an adapter, but this model is trained in full. Add an adapter first.")
    try:
        loaded = type(base).from_pretrained(folder, dtype=next(base.parameters()).dtype)
    except Exception as error:  # whatever a damaged file makes of Transformers: nothing was changed
        raise CheckpointError(f"The weights in {folder} can't be read: {error}") from error
    tensors: dict[str, Tensor] = loaded.state_dict()
    for name, value in base.state_dict().items():
        if name not in tensors or tensors[name].shape != value.shape:
            found = list(tensors[name].shape) if name in tensors else "nothing"
            raise CheckpointError(f"{folder} doesn't fit this model: {name} is {found} instead of {list(value.shape)}.")
    return tensors


def upload_folder(folder: Path, repo: str, *, token: str | None, private: bool, message: str) -> str:
    """Publish a folder as a model repository, ``hf://owner/name`` or ``ms://owner/name`` (no scheme: Hugging Face).

    Raises:
        ConfigError: the scheme is another.
        CheckpointError: the hub refuses, or can't be reached.
    """
    scheme, _, name = repo.rpartition("://")
    try:
        if scheme in ("", "hf"):
            from huggingface_hub import HfApi

            api = HfApi(token=token)
            api.create_repo(name, private=private, exist_ok=True)
            api.upload_folder(repo_id=name, folder_path=folder, commit_message=message)
        elif scheme == "ms":
            from modelscope.hub.api import HubApi

            hub = HubApi(token=token)
            hub.create_repo(name, visibility="private" if private else "public", exist_ok=True)
            hub.upload_folder(repo_id=name, folder_path=str(folder), commit_message=message)
        else:
            raise ConfigError(f"Models are published to hf:// or ms://, not {scheme}://.")
    except ConfigError:
        raise
    except Exception as error:  # each client has a tree of errors of its own
        raise CheckpointError(f"{folder} can't be published as {repo}: {error}") from error
    return f"{scheme or 'hf'}://{name}"
