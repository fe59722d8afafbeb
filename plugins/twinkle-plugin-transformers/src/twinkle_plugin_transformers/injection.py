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
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import AuxiliaryTrainingWrapper
from torch import Tensor, nn

from twinkle.errors import AdapterError, CheckpointError, ConfigError, TwinkleError
from twinkle_plugin_transformers.checkpoint_folder import first_of
from twinkle_plugin_transformers.lora import fuse_lora_layers


class AdapterSet:
    """The adapters of one base model, by name; which of them is active, and whether any is."""

    def __init__(self, base: nn.Module, *, seed: int) -> None:
        self.base = base
        self.peft: PeftModel | None = None
        self._seed = seed
        self._active = ""

    def add(
        self, name: str, config: PeftConfig, weights: dict[str, Tensor] | None = None, source: Path | None = None
    ) -> list[nn.Parameter]:
        """Inject an adapter, make it active, and return its trainable parameters.

        New weights depend on the seed and the adapter's name only, and the global random state isn't touched. ``weights``, read
        from ``source``, take their place.

        Raises:
            ConfigError: the configuration doesn't fit the model; the model is as it was.
            CheckpointError: ``weights`` aren't this configuration's; the model is as it was.
        """
        self._check_config(name, config)
        config = copy.deepcopy(config)
        config.base_model_name_or_path = None  # PEFT fills it in
        before = {id(parameter): parameter.requires_grad for parameter in self.base.parameters()}
        earlier, peft_name = self.peft, _peft_name(name)
        try:
            with torch.random.fork_rng():
                torch.manual_seed(self._seed ^ zlib.crc32(name.encode()))
                if self.peft is None:
                    self.peft = get_peft_model(self.base, config, adapter_name=peft_name)
                else:
                    self.peft.add_adapter(peft_name, config)
            if weights is not None:
                weights = self._without_base_weights(weights)
                self.check_state(name, weights, source)
                self.load_state(name, weights)
            self.peft.set_adapter(peft_name)
        except BaseException as error:
            self._undo(peft_name, earlier, before)
            if isinstance(error, TwinkleError) or not isinstance(error, Exception):
                raise
            raise ConfigError(f"Adapter {name!r} can't be added: {error}") from error
        fuse_lora_layers(self.base)
        self._active = name
        return [parameter for parameter in self.base.parameters() if parameter.requires_grad]

    def _without_base_weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """``weights`` without copies of the base model's own, which PEFT also writes where an adapter touches embedding or head."""
        own = self.base.state_dict()

        def is_copy(name: str, value: Tensor) -> bool:
            mine = own.get(name.removeprefix("base_model.model."))
            return ".base_layer." in name and mine is not None and torch.equal(mine, value.to(mine))

        return {name: value for name, value in weights.items() if not is_copy(name, value)}

    def _check_config(self, name: str, config: PeftConfig) -> None:
        if not isinstance(config, PeftConfig):
            raise ConfigError(
                f"Adapter {name!r}: expected a PEFT configuration such as peft.LoraConfig, not {type(config).__name__}."
            )
        if config.is_prompt_learning or config.is_adaption_prompt:
            raise ConfigError(
                f"Adapter {name!r}: {config.peft_type} changes the model's inputs; only injected adapters such as LoRA work."
            )
        others = {} if self.peft is None else self.peft.peft_config
        if others and any(getattr(other, "bias", "none") != "none" for other in (config, *others.values())):
            raise ConfigError(
                f"Adapter {name!r} can't be added beside others: with bias other than 'none' an adapter trains biases of the base "
                f"model, which all adapters share. Give LoraConfig(bias='none'), or each its own model."
            )

    def _undo(self, peft_name: str, earlier: PeftModel | None, trained: dict[int, bool]) -> None:
        """The model as it was before an adapter that can't be added; ``trained`` says of each parameter if it was trained."""
        _remove_traces(self.base, peft_name)
        self.peft = earlier
        if earlier is None:
            vars(self.base).pop("peft_config", None)
        else:
            earlier.peft_config.pop(peft_name, None)
            self._active = ""
        for parameter in self.base.parameters():
            parameter.requires_grad_(trained.get(id(parameter), parameter.requires_grad))

    def activate(self, name: str) -> None:
        """Make ``name`` the adapter of the next forward pass; its parameters become the trainable ones."""
        if self.peft is not None and name and self._active != name:
            self.peft.set_adapter(_peft_name(name))
            self._active = name

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
        return self._peft(name).peft_config[_peft_name(name)]

    def state_dict(self, name: str) -> dict[str, Tensor]:
        """The adapter's weights under the names of PEFT's own files."""
        peft = self._peft(name)
        state: dict[str, Tensor] = get_peft_model_state_dict(peft, adapter_name=_peft_name(name), save_embedding_layers=False)
        return state

    def check_state(self, name: str, state: dict[str, Tensor], source: Path | None) -> None:
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
            raise CheckpointError(f"{source or 'The state'} doesn't fit adapter {name!r}: {first_of(problems)}.")

    def load_state(self, name: str, state: dict[str, Tensor]) -> None:
        """Take over weights that ``check_state`` found right."""
        set_peft_model_state_dict(self._peft(name), state, adapter_name=_peft_name(name))

    def _peft(self, name: str) -> PeftModel:
        if self.peft is None or _peft_name(name) not in self.peft.peft_config:
            raise AdapterError(f"There is no adapter {name!r} in the model.")
        return self.peft


def _peft_name(name: str) -> str:
    """An adapter's name inside PEFT, which finds an adapter's weights by its name anywhere in a path of modules: an adapter called
    ``q_proj`` would take those layers out of every other adapter's files, and it can't have one called ``lora``. No module has
    a hyphen in its name."""
    return f"{name}-adapter"


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
