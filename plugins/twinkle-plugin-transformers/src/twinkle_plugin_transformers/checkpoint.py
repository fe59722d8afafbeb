"""Checkpoints of a model: which files, in whose formats.

Adapters are in PEFT's own format (``adapter_model.safetensors``, ``adapter_config.json``) and full models in Transformers'
(``save_pretrained``), so other tools read them; beside them lie the training state and the index. Leans on ``checkpoint_folder``
for writing whole folders and on ``trainer_state`` for everything but weights.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftConfig
from safetensors.torch import save_file
from torch import Tensor, nn

from twinkle.checkpoint_index import INDEX, verify_folder
from twinkle.errors import CheckpointError, TwinkleError
from twinkle.hub import download_model
from twinkle.run_verify import check_resume
from twinkle_plugin_transformers.adapter import AdapterState
from twinkle_plugin_transformers.checkpoint_folder import first_of, read_tensors, recover_folder, write_folder
from twinkle_plugin_transformers.data_parallel import DataParallel
from twinkle_plugin_transformers.injection import AdapterSet
from twinkle_plugin_transformers.materials import model_details, used_components
from twinkle_plugin_transformers.publishing import Publishing
from twinkle_plugin_transformers.trainer_state import random_state, read_training_state, write_training_state

if TYPE_CHECKING:
    from twinkle_hub.uploads import UploadHandle

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
    if (folder / INDEX).is_file():
        verify_folder(folder)
    return config, read_tensors(folder / ADAPTER_WEIGHTS)


class Checkpoints:
    """Writes and reads one model's checkpoints, together with the other ranks."""

    def __init__(
        self,
        base: Any,
        adapters: AdapterSet,
        *,
        parallel: DataParallel,
        device: torch.device,
        source: Path | None,
        model_id: str | None,
    ) -> None:
        self._base, self._adapters = base, adapters
        self._parallel, self._device = parallel, device
        self._source, self._model_id = source, model_id

    def save(self, target: Path, state: AdapterState, *, training: bool, data: dict[str, Any]) -> Path:
        """Write ``target`` on the master; ``training`` adds everything that resuming needs. Every rank has to call it.

        Raises:
            CheckpointError: it can't be written; every rank raises it.
        """
        runtime = self._parallel.runtime
        randoms = self._parallel.gather(random_state(self._device)) if training else []

        def fill(folder: Path) -> None:
            self._write_weights(folder, state)
            if training:
                write_training_state(folder, state, randoms=randoms, data=data)
            runtime.record.write(folder, runtime, **self._materials(state))

        def write() -> None:
            write_folder(target, fill)
            runtime.hooks.saved_checkpoint(target, state.steps)

        self._on_master(write)
        return target

    def _materials(self, state: AdapterState) -> dict[str, Any]:
        """What the model tells of itself for the bill of materials."""
        return {"model": model_details(state, self._base, self._model_id), "components": used_components(state)}

    def read(self, folder: Path, state: AdapterState, *, training: bool, verify: bool = False) -> dict[str, Any]:
        """Take over what ``folder`` holds, once all of it was found right; returns the data position. Every rank has to call it.

        ``verify``: also that the run that wrote it was made of what this one is.

        Raises:
            CheckpointError: it isn't whole, or doesn't fit; nothing was changed.
        """
        self._on_master(lambda: recover_folder(folder))
        if verify:
            runtime = self._parallel.runtime
            self._on_master(lambda: check_resume(folder, runtime.record.as_plain(runtime, **self._materials(state))))
        verify_folder(folder)
        weights = ReadWeights(folder, self._base, self._adapters, state)
        found = read_training_state(folder, state) if training else None
        weights.apply()
        return {} if found is None else found.apply(state, rank=self._parallel.rank, device=self._device)

    def upload(self, folder: Path, publishing: Publishing, *, background: bool) -> str | UploadHandle:
        """Publish a whole checkpoint from the master, see ``upload_to_hub``. Every rank has to call it."""
        verify_folder(folder)
        if not background:
            where: str = self._on_master(lambda: publishing.publish(folder))
            return where
        handles: list[UploadHandle] = []  # a thread is known to its own process only
        self._on_master(lambda: handles.append(publishing.start(folder)))
        return handles[0] if handles else publishing.repo

    def _on_master(self, act: Callable[[], Any]) -> Any:
        """What ``act`` returns on the master, on every rank; or what it raises there, so that no rank waits for one that failed."""
        result: Any = None
        problem: TwinkleError | None = None
        failure: Exception | None = None
        if self._parallel.is_master:
            try:
                result = act()
            except Exception as error:
                failure = error  # whatever it is stays here; what goes round has to pickle
                problem = error if isinstance(error, TwinkleError) else CheckpointError(f"The master failed: {error!r}")
        result, problem = self._parallel.broadcast((result, problem))
        if problem is not None:
            raise failure or problem
        return result

    def _write_weights(self, folder: Path, state: AdapterState) -> None:
        """Write what ``state`` trains; a full model also with its tokenizer, where the folder it came from has one."""
        if state.name:
            tensors = {name: value.detach().cpu().contiguous() for name, value in self._adapters.state_dict(state.name).items()}
            save_file(tensors, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
            config = copy.deepcopy(self._adapters.config(state.name))
            config.inference_mode = True  # as PEFT itself saves it
            config.base_model_name_or_path = self._model_id
            config.save_pretrained(str(folder))
            return
        self._base.save_pretrained(folder)
        for name in _TOKENIZER_FILES:
            if self._source is not None and (self._source / name).is_file():
                shutil.copyfile(self._source / name, folder / name)


class ReadWeights:
    """Weights of a checkpoint, read and found fit for the model; ``apply`` takes them over."""

    def __init__(self, folder: Path, base: nn.Module, adapters: AdapterSet, state: AdapterState) -> None:
        """Read and check; changes nothing.

        Raises:
            CheckpointError: they are missing, cut short, or another model's.
        """
        self._base, self._adapters, self._name = base, adapters, state.name
        self._tensors: Mapping[str, Tensor]
        if state.name:
            self._tensors = read_tensors(folder / ADAPTER_WEIGHTS)
            adapters.check_state(state.name, dict(self._tensors), folder)
        else:
            self._tensors = _read_full(folder, base)

    def apply(self) -> None:
        """Make them the model's."""
        if self._name:
            self._adapters.load_state(self._name, dict(self._tensors))
            return
        with torch.no_grad():
            for name, value in self._base.state_dict().items():
                value.copy_(self._tensors[name])


def _read_full(folder: Path, base: Any) -> Mapping[str, Tensor]:
    """The weights of a full model, read by the model's own class, which knows how it maps files to parameters."""
    if (folder / "adapter_config.json").is_file():
        raise CheckpointError(f"{folder} holds an adapter, but this model is trained in full. Add an adapter first.")
    try:
        with torch.random.fork_rng():
            loaded, told = type(base).from_pretrained(folder, dtype=next(base.parameters()).dtype, output_loading_info=True)
    except Exception as error:  # whatever a damaged file makes of Transformers: nothing was changed
        raise CheckpointError(f"The weights in {folder} can't be read: {error}") from error
    tensors: dict[str, Tensor] = loaded.state_dict()
    ours: dict[str, Tensor] = base.state_dict()
    problems = [f"{name} is missing" for name in (*told["missing_keys"], *(name for name in ours if name not in tensors))]
    problems += [f"this model has no {name}" for name in tensors if name not in ours]
    problems += [
        f"{name} is {list(tensors[name].shape)} instead of {list(value.shape)}"
        for name, value in ours.items()
        if name in tensors and tensors[name].shape != value.shape
    ]
    problems = problems or _untied(ours, tensors)
    if problems:
        raise CheckpointError(f"{folder} doesn't fit this model: {first_of(problems)}.")
    return tensors


def _untied(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> list[str]:
    """Weights that are one in this model and differ in the checkpoint, such as an embedding and its tied head."""
    owners: dict[tuple[int, int], str] = {}
    problems = []
    for name, value in ours.items():
        owner = owners.setdefault((value.data_ptr(), value.numel()), name)
        if owner != name and value.numel() and not torch.equal(theirs[name], theirs[owner]):
            problems.append(f"{owner} and {name} are one weight here and two there")
    return problems
