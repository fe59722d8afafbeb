"""Adapters in a model: put in by PEFT, taken out again where that fails.

All layers, files and names are PEFT's own. What is added: weights that are the same on every rank whatever was drawn before, the
fused LoRA product, and an add that either works or leaves no trace. Knows nothing of optimizers or losses.
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import AuxiliaryTrainingWrapper
from torch import Tensor, nn

from twinkle.errors import AdapterError, CheckpointError, ConfigError
from twinkle_plugin_transformers.lora import fuse_lora_layers


class AdapterSet:
    """The adapters of one base model, by name; which of them is active, and whether any is."""

    def __init__(self, base: nn.Module, *, seed: int) -> None:
        self.base = base
        self.peft: PeftModel | None = None
        self._seed = seed
        self._active = ""

    def add(self, name: str, config: PeftConfig) -> list[nn.Parameter]:
        """Inject an adapter, make it active, and return its trainable parameters.

        The weights depend on the seed and the adapter's name only, and the global random state isn't touched.

        Raises:
            ConfigError: the configuration doesn't fit the model; the model is as it was.
        """
        if not isinstance(config, PeftConfig):
            raise ConfigError(
                f"Adapter {name!r}: expected a PEFT configuration such as peft.LoraConfig, not {type(config).__name__}."
            )
        if config.is_prompt_learning or config.is_adaption_prompt:
            raise ConfigError(
                f"Adapter {name!r}: {config.peft_type} changes the model's inputs; only injected adapters such as LoRA work."
            )
        prefix = PEFT_TYPE_TO_PREFIX_MAPPING.get(config.peft_type, "")
        if name in prefix:
            raise ConfigError(
                f"An adapter can't be called {name!r}: PEFT's own names begin with {prefix!r}, and it couldn't tell them apart."
            )
        config = copy.deepcopy(config)
        config.base_model_name_or_path = None  # PEFT fills it in
        before = {id(parameter): parameter.requires_grad for parameter in self.base.parameters()}
        first = self.peft is None
        try:
            with torch.random.fork_rng():
                torch.manual_seed(self._seed ^ zlib.crc32(name.encode()))
                if self.peft is None:
                    peft = get_peft_model(self.base, config, adapter_name=name)
                else:
                    peft = self.peft
                    peft.add_adapter(name, config)
        except Exception as error:
            _remove_traces(self.base, name)
            if first:
                vars(self.base).pop("peft_config", None)
            for parameter in self.base.parameters():
                parameter.requires_grad_(before.get(id(parameter), parameter.requires_grad))
            raise ConfigError(f"Adapter {name!r} can't be added: {error}") from error
        self.peft = peft
        fuse_lora_layers(self.base)
        self._active = ""
        self.activate(name)
        return [parameter for parameter in self.base.parameters() if parameter.requires_grad]

    def activate(self, name: str) -> None:
        """Make ``name`` the adapter of the next forward pass; its parameters become the trainable ones."""
        if self.peft is not None and name and self._active != name:
            self.peft.set_adapter(name)
            self._active = name

    def remove(self, name: str) -> None:
        """Take an adapter out again, as if it had never been there."""
        if self.peft is None:
            return
        others = [other for other in self.peft.peft_config if other != name]
        _remove_traces(self.base, name)
        self.peft.peft_config.pop(name, None)
        self._active = ""
        if others:
            self.activate(others[0])
        else:
            self.peft = None
            vars(self.base).pop("peft_config", None)

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """The base model alone, inside the context; adapters are back afterwards, whatever happened inside."""
        if self.peft is None:
            yield
            return
        tuner = self.peft.base_model
        tuner.disable_adapter_layers()
        try:
            yield
        finally:
            tuner.enable_adapter_layers()

    def config(self, name: str) -> PeftConfig:
        """PEFT's configuration of an adapter."""
        return self._peft(name).peft_config[name]

    def state_dict(self, name: str) -> dict[str, Tensor]:
        """The adapter's weights under the names of PEFT's own files."""
        state: dict[str, Tensor] = get_peft_model_state_dict(self._peft(name), adapter_name=name, save_embedding_layers=False)
        return state

    def check_state(self, name: str, state: dict[str, Tensor], source: Path) -> None:
        """Compare names and shapes before anything is loaded.

        Raises:
            CheckpointError: ``state`` isn't this adapter's.
        """
        expected = self.state_dict(name)
        problems = [f"{key} is missing" for key in expected if key not in state]
        problems += [f"{key} isn't known" for key in state if key not in expected]
        problems += [
            f"{key} is {list(state[key].shape)} instead of {list(value.shape)}"
            for key, value in expected.items()
            if key in state and state[key].shape != value.shape
        ]
        if problems:
            more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
            raise CheckpointError(f"{source} doesn't fit adapter {name!r}: {'; '.join(problems[:3])}{more}.")

    def load_state(self, name: str, state: dict[str, Tensor]) -> None:
        """Take over weights that ``check_state`` found right."""
        set_peft_model_state_dict(self._peft(name), state, adapter_name=name)

    def _peft(self, name: str) -> PeftModel:
        if self.peft is None or name not in self.peft.peft_config:
            raise AdapterError(f"There is no adapter {name!r} in the model.")
        return self.peft


def _remove_traces(base: nn.Module, name: str) -> None:
    """Take adapter ``name`` out of every layer, and unwrap layers that hold no other."""
    for path, module in list(base.named_modules()):
        if isinstance(module, BaseTunerLayer):
            if name in module._get_available_adapters():
                module.delete_adapter(name)
            if not module._get_available_adapters():
                _replace(base, path, module.get_base_layer())
        elif isinstance(module, AuxiliaryTrainingWrapper):
            if name in module._adapters:
                module.delete_adapter(name, new_active_adapters=None)
            if not module._adapters:
                _replace(base, path, module.original_module)


def _replace(base: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, leaf = path.rpartition(".")
    setattr(base.get_submodule(parent), leaf, module)
