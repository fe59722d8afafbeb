"""Which hardware exists, by name: groups of ranks that components are placed on.

Plain data. Knows nothing of how a component is spread over its group (that is the mesh) or of who starts its processes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from operator import index

from twinkle.errors import ConfigError


@dataclass(frozen=True, init=False)
class DeviceGroup:
    """A named group of devices.

    ``ranks`` are device numbers within the whole cluster: ``4`` means 0 … 3. Each worker process holds ``gpus_per_worker`` of them,
    in order. ``visible_devices`` limits them to certain device ids of a host (``"0,2"``).

    Raises:
        ConfigError: a name, rank or number that can't be; it says which and what would do.
    """

    name: str
    ranks: tuple[int, ...]
    device_type: str = "cpu"
    visible_devices: str | None = None
    gpus_per_worker: int = 1

    def __init__(
        self,
        name: str,
        ranks: int | Iterable[int],
        device_type: str = "cpu",
        visible_devices: str | Iterable[int] | None = None,
        gpus_per_worker: int = 1,
    ) -> None:
        if not name or not isinstance(name, str):
            raise ConfigError(f"A device group needs a name, not {name!r}.")
        numbers = _ranks(name, ranks)
        if gpus_per_worker < 1 or len(numbers) % gpus_per_worker:
            fitting = ", ".join(str(n) for n in range(1, len(numbers) + 1) if len(numbers) % n == 0)
            raise ConfigError(
                f"Device group {name!r} has {len(numbers)} ranks, which workers of {gpus_per_worker} devices each can't share. "
                f"gpus_per_worker may be {fitting}."
            )
        if visible_devices is not None and not isinstance(visible_devices, str):
            visible_devices = ",".join(str(index(device)) for device in visible_devices)
        values = (name, numbers, device_type.lower(), visible_devices, gpus_per_worker)
        for field, value in zip(("name", "ranks", "device_type", "visible_devices", "gpus_per_worker"), values, strict=True):
            object.__setattr__(self, field, value)

    @property
    def world_size(self) -> int:
        """The number of worker processes."""
        return len(self.ranks) // self.gpus_per_worker

    def __str__(self) -> str:
        each = f", {self.gpus_per_worker} a worker" if self.gpus_per_worker > 1 else ""
        return f"{self.name}: {len(self.ranks)} × {self.device_type} (ranks {_spans(self.ranks)}{each})"


def check_groups(groups: Iterable[DeviceGroup]) -> tuple[DeviceGroup, ...]:
    """The groups as a tuple.

    Raises:
        ConfigError: something isn't a group, or two have the same name.
    """
    found: dict[str, DeviceGroup] = {}
    for group in groups:
        if not isinstance(group, DeviceGroup):
            raise ConfigError(f"groups holds {group!r}, which is no DeviceGroup.")
        if group.name in found:
            raise ConfigError(f"Two device groups are named {group.name!r}; a component couldn't say which one it means.")
        found[group.name] = group
    return tuple(found.values())


def _ranks(name: str, ranks: int | Iterable[int]) -> tuple[int, ...]:
    try:
        numbers = tuple(range(ranks)) if isinstance(ranks, int) else tuple(index(rank) for rank in ranks)
    except TypeError:
        raise ConfigError(f"The ranks of device group {name!r} are a number of them or a list of numbers, not {ranks!r}.") from None
    if not numbers or min(numbers) < 0 or len(set(numbers)) != len(numbers):
        raise ConfigError(
            f"Device group {name!r} has the ranks {ranks!r}; they have to be different, not negative, and at least one."
        )
    return numbers


def _spans(ranks: tuple[int, ...]) -> str:
    """``(0, 1, 2, 5)`` as ``"0-2, 5"``."""
    spans: list[list[int]] = []
    for rank in ranks:
        if spans and rank == spans[-1][-1] + 1:
            spans[-1][1:] = [rank]
        else:
            spans.append([rank])
    return ", ".join("-".join(map(str, span)) for span in spans)
