"""Which kind of device this machine has: cuda, npu, mps, or cpu, which always works.

Platforms are found, not assumed. torch is imported only where the hardware could be there, or where its devices are counted;
on a machine with nothing but a CPU it never is. Knows nothing of ranks.
"""

from __future__ import annotations

import importlib.util
import os
import platform as _machine
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twinkle.errors import ConfigError

DEVICE_VARIABLE = "TWINKLE_DEVICE"
"""Environment variable that overrides what would be found: a device type."""


@dataclass(frozen=True)
class Platform:
    """A kind of device and the torch.distributed backend that joins processes on it.

    ``Platform.current()`` is the one that this machine has; ``Platform.named(device_type)`` any known one.
    """

    device_type: str
    backend: str
    visible_devices_variable: str | None = None

    @classmethod
    def current(cls) -> Platform:
        """The best platform here: cuda, npu, mps, else cpu. ``TWINKLE_DEVICE`` overrides it.

        Raises:
            ConfigError: ``TWINKLE_DEVICE`` names no platform, or one that this machine doesn't have.
        """
        wanted = os.environ.get(DEVICE_VARIABLE)
        if not wanted:
            return next(row for row in _PLATFORMS.values() if row.is_available())
        platform = cls.named(wanted)
        if not platform.is_available():
            here = ", ".join(row.device_type for row in cls.available())
            raise ConfigError(
                f"{DEVICE_VARIABLE}={wanted}, but this machine has no {wanted} device that torch can use. It has: {here}."
            )
        return platform

    @classmethod
    def named(cls, device_type: str) -> Platform:
        """The platform of that device type, whether it is here or not.

        Raises:
            ConfigError: there is none; the message lists them.
        """
        try:
            return _PLATFORMS[device_type]
        except KeyError:
            raise ConfigError(f"There is no platform {device_type!r}. Platforms: {', '.join(_PLATFORMS)}.") from None

    @classmethod
    def available(cls) -> list[Platform]:
        """All platforms that this machine has, best first."""
        return [row for row in _PLATFORMS.values() if row.is_available()]

    def is_available(self) -> bool:
        """Whether this machine has such a device and an installed torch that can use it."""
        if self.device_type == "cpu":
            return True
        if not _could_be_here(self) or importlib.util.find_spec("torch") is None:
            return False
        if self.device_type == "npu" and importlib.util.find_spec("torch_npu") is None:
            return False
        return bool(_torch_module(self.device_type).is_available())

    def device_count(self) -> int:
        """How many devices processes can be spread over; 1 for cpu, which any number of processes share."""
        if self.device_type in ("cpu", "mps"):
            return 1
        return int(_torch_module(self.device_type).device_count())

    def device(self, local_rank: int = 0) -> str:
        """The torch name of the device that a local rank uses: ``"cpu"``, ``"mps"``, ``"cuda:1"``, …

        Raises:
            ConfigError: there are fewer devices than ranks on this host; but where a process sees one only, that is its own.
        """
        if self.device_type in ("cpu", "mps"):
            return self.device_type
        count = self.device_count()
        if local_rank >= count > 1 or count < 1:
            raise ConfigError(
                f"Local rank {local_rank} has no {self.device_type} device: {count} can be seen here. "
                f"Start at most {count} processes on this host, or look at {self.visible_devices_variable}."
            )
        return f"{self.device_type}:{local_rank if count > 1 else 0}"

    def __str__(self) -> str:
        return self.device_type


# In order of preference. gloo has no mps tensors, but it is what joins processes on such a machine.
_PLATFORMS: Mapping[str, Platform] = {
    row.device_type: row
    for row in (
        Platform("cuda", "nccl", "CUDA_VISIBLE_DEVICES"),
        Platform("npu", "hccl", "ASCEND_RT_VISIBLE_DEVICES"),
        Platform("mps", "gloo"),
        Platform("cpu", "gloo"),
    )
}

# Where the drivers show themselves: NVIDIA, ROCm (which torch calls cuda), NVIDIA under WSL 2; Ascend.
_TRACES = {"cuda": ("/dev/nvidia[0-9]*", "/dev/kfd", "/dev/dxg"), "npu": ("/dev/davinci[0-9]*",)}


def _could_be_here(platform: Platform) -> bool:
    if platform.device_type == "mps":
        return sys.platform == "darwin" and _machine.machine() == "arm64"
    variable = platform.visible_devices_variable
    if variable is not None and os.environ.get(variable, "all").strip() in ("", "-1"):
        return False
    if sys.platform == "win32" and platform.device_type == "cuda":
        return True
    return any(next(Path("/").glob(trace[1:]), None) is not None for trace in _TRACES[platform.device_type])


def _torch_module(device_type: str) -> Any:
    import torch

    if device_type == "npu":
        importlib.import_module("torch_npu")
    return torch.backends.mps if device_type == "mps" else getattr(torch, device_type)
