"""What makes a run go on exactly where it stopped, beside the weights: optimizer, schedule, random state and counters.

Tensors go into safetensors, everything else into JSON; nothing is pickled, so reading a checkpoint runs no code. Reading has two
halves: ``read_training_state`` checks everything, ``TrainingState.apply`` changes things and can't fail any more for anything in
the files. Knows nothing of weights or folders' indices.
"""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from twinkle.errors import CheckpointError
from twinkle_plugin_transformers.adapter import AdapterState
from twinkle_plugin_transformers.checkpoint_folder import read_json, read_tensors

STATE = "training_state.json"
OPTIMIZER = "optimizer.safetensors"
_TUPLE, _PAIRS = "__tuple__", "__pairs__"


def random_state(device: torch.device) -> dict[str, Any]:
    """The random state of this process as plain data: Python's, NumPy's, PyTorch's, and the device's."""
    name, keys, position, has_gauss, gauss = np.random.get_state()
    numpy_state = [name, np.asarray(keys).tolist(), position, has_gauss, gauss]
    version, internal, gauss_next = random.getstate()
    state: dict[str, Any] = {
        "python": [version, list(internal), gauss_next],
        "numpy": numpy_state,
        "torch": bytes(torch.get_rng_state().tolist()).hex(),
    }
    if device.type != "cpu":
        state[device.type] = bytes(torch.get_device_module(device).get_rng_state(device).tolist()).hex()
    return state


def restore_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Make the random state what ``random_state`` gave."""
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(_bytes_tensor(state["torch"]))
    if device.type in state and device.type != "cpu":
        torch.get_device_module(device).set_rng_state(_bytes_tensor(state[device.type]), device)


def write_training_state(folder: Path, state: AdapterState, *, randoms: list[dict[str, Any]], data: dict[str, Any]) -> None:
    """Write everything of ``state`` but its weights. ``randoms`` is every rank's random state, ``data`` the data position.

    Raises:
        CheckpointError: the optimizer or the schedule keeps something that is neither a tensor nor plain data.
    """
    optimizer = None if state.optimizer is None else state.optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    plain: dict[str, dict[str, Any]] = {}
    for index, slots in ({} if optimizer is None else optimizer["state"]).items():
        for key, value in slots.items():
            if isinstance(value, Tensor):
                tensors[f"{index}/{key}"] = value.detach().cpu().contiguous()
            else:
                plain.setdefault(str(index), {})[key] = value
    content = {
        "steps": state.steps,
        "schedule_due": state.schedule_due,
        "gradient_accumulation_steps": state.gradient_accumulation_steps,
        "optimizer": None
        if optimizer is None
        else {
            "class": type(state.optimizer).__name__,
            "shapes": _shapes(state.optimizer),
            "groups": _to_plain(optimizer["param_groups"]),
            "plain": _to_plain(plain),
        },
        "scheduler": None
        if state.scheduler is None
        else {"class": type(state.scheduler).__name__, "state": _to_plain(state.scheduler.state_dict())},
        "loss_scale": None if state.loss_scale is None else asdict(state.loss_scale),
        "random": randoms,
        "data": data,
    }
    try:
        text = json.dumps(content)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"The state of {type(state.optimizer).__name__} or {type(state.scheduler).__name__} can't be saved: {error}. "
            f"Checkpoints hold tensors and plain data only. Save with save_optimizer=False."
        ) from error
    (folder / STATE).write_text(text, encoding="utf-8")
    if optimizer is not None:
        save_file(tensors, folder / OPTIMIZER)


@dataclass
class TrainingState:
    """What a checkpoint holds beside weights, read and found fit for one adapter."""

    content: dict[str, Any]
    optimizer: dict[str, Any] | None

    def apply(self, state: AdapterState, *, rank: int, device: torch.device) -> dict[str, Any]:
        """Take it over; returns the data position."""
        if self.optimizer is not None and state.optimizer is not None:
            state.optimizer.load_state_dict(self.optimizer)
        if self.content["scheduler"] is not None and state.scheduler is not None:
            state.scheduler.load_state_dict(_from_plain(self.content["scheduler"]["state"]))
        if self.content["loss_scale"] is not None and state.loss_scale is not None:
            vars(state.loss_scale).update(self.content["loss_scale"])
        state.steps = self.content["steps"]
        state.schedule_due = self.content["schedule_due"]
        state.zero_grad()
        state.train_pass = state.eval_pass = state.last_pass = None
        randoms = self.content["random"]
        if rank < len(randoms):
            restore_random_state(randoms[rank], device)
        data: dict[str, Any] = self.content["data"]
        return data


def read_training_state(folder: Path, state: AdapterState) -> TrainingState:
    """Read what ``write_training_state`` wrote, and check that it fits ``state``; changes nothing.

    Raises:
        CheckpointError: a file is missing or cut short, or optimizer or schedule are of another kind or other parameters.
    """
    content = read_json(folder / STATE)
    for kind, ours in (("optimizer", state.optimizer), ("scheduler", state.scheduler)):
        theirs = content[kind]
        if theirs is None and ours is None:
            continue
        found, wanted = (theirs or {}).get("class", "none"), "none" if ours is None else type(ours).__name__
        if found != wanted:
            raise CheckpointError(
                f"{folder} was written with {kind} {found}, but this run has {wanted}. "
                f"Set the same {kind} before resuming, or load weights only with load()."
            )
    if content["optimizer"] is None:
        return TrainingState(content, None)
    return TrainingState(content, _read_optimizer(folder, content["optimizer"], state))


def _read_optimizer(folder: Path, content: dict[str, Any], state: AdapterState) -> dict[str, Any]:
    assert state.optimizer is not None
    groups = _from_plain(content["groups"])
    if [len(group["params"]) for group in groups] != [len(group["params"]) for group in state.optimizer.param_groups]:
        raise CheckpointError(f"{folder / STATE}: the optimizer's parameter groups don't match this run's.")
    for place, (theirs, ours) in enumerate(zip(content["shapes"], _shapes(state.optimizer), strict=True)):
        if theirs != ours:
            raise CheckpointError(f"{folder / STATE}: parameter {place} of the optimizer is {theirs}, but {ours} in this run.")
    slots: dict[int, dict[str, Any]] = {int(index): dict(values) for index, values in _from_plain(content["plain"]).items()}
    for name, tensor in read_tensors(folder / OPTIMIZER).items():
        index, _, key = name.partition("/")
        slots.setdefault(int(index), {})[key] = tensor
    return {"state": slots, "param_groups": groups}


def _shapes(optimizer: Any) -> list[list[int]]:
    """The shape of each parameter. Slots needn't have it: Adafactor keeps rows and columns."""
    return [list(parameter.shape) for group in optimizer.param_groups for parameter in group["params"]]


def _to_plain(value: Any) -> Any:
    """``value`` with what JSON would change written as what it doesn't: tuples, and mappings whose keys aren't texts."""
    if isinstance(value, tuple):
        return {_TUPLE: [_to_plain(item) for item in value]}
    if isinstance(value, list):
        return [_to_plain(item) for item in value]
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value):
            return {key: _to_plain(item) for key, item in value.items()}
        return {_PAIRS: [[_to_plain(key), _to_plain(item)] for key, item in value.items()]}
    return value


def _from_plain(value: Any) -> Any:
    """What ``_to_plain`` was given."""
    if isinstance(value, list):
        return [_from_plain(item) for item in value]
    if isinstance(value, dict):
        if value.keys() == {_TUPLE}:
            return tuple(_from_plain(item) for item in value[_TUPLE])
        if value.keys() == {_PAIRS}:
            return {_from_plain(key): _from_plain(item) for key, item in value[_PAIRS]}
        return {key: _from_plain(item) for key, item in value.items()}
    return value


def _bytes_tensor(text: str) -> Tensor:
    return torch.tensor(list(bytes.fromhex(text)), dtype=torch.uint8)
