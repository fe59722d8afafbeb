"""What the launcher (torchrun, a Ray worker, or nobody) says of this process: its rank and its world.

The one place that reads ``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK`` and ``LOCAL_WORLD_SIZE``. Knows nothing of torch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from twinkle.errors import ConfigError


@dataclass(frozen=True)
class Launch:
    """Which process this is: ``rank`` of ``world_size``, ``local_rank`` of ``local_world_size`` on this host."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Launch:
        """Read it from ``environ`` (default: ``os.environ``); without ``WORLD_SIZE``, a world of one.

        Raises:
            ConfigError: a variable is missing or no number, or the rank lies outside of its world.
        """
        environ = os.environ if environ is None else environ
        if "WORLD_SIZE" not in environ:
            return cls()
        world_size = _number(environ, "WORLD_SIZE")
        rank = _number(environ, "RANK", 0 if world_size == 1 else None)
        local_world_size = _number(environ, "LOCAL_WORLD_SIZE", world_size)
        local_rank = _number(environ, "LOCAL_RANK", rank % max(local_world_size, 1))
        if world_size < 1 or not 0 <= rank < world_size:
            raise ConfigError(f"The environment says RANK={rank} and WORLD_SIZE={world_size}; a rank is 0 … WORLD_SIZE - 1.")
        if local_world_size < 1 or not 0 <= local_rank < local_world_size:
            raise ConfigError(
                f"The environment says LOCAL_RANK={local_rank} and LOCAL_WORLD_SIZE={local_world_size}; "
                f"a local rank is 0 … LOCAL_WORLD_SIZE - 1."
            )
        return cls(rank, world_size, local_rank, local_world_size)


def _number(environ: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environ.get(name)
    if text is None:
        if default is None:
            raise ConfigError(f"WORLD_SIZE is set, but {name} is not. Start processes with torchrun, which sets both, or unset it.")
        return default
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"The environment variable {name} is {text!r}, which is no whole number.") from None
