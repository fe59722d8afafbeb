"""What the environment says about hubs: the one place that reads it.

``Settings.from_environment()`` is called at the border (a command, ``twinkle.hub``) and the result handed on as a value. Knows
nothing of hubs, and never reads or holds a token: the hubs' own clients do that.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_NO = frozenset({"", "0", "false", "no", "off", "n", "f"})


def is_set(value: str | None) -> bool:
    """Whether the value of an environment variable means yes: ``None``, ``""``, ``0``, ``false``, ``no``, ``off`` mean no."""
    return value is not None and value.strip().lower() not in _NO


@dataclass(frozen=True)
class Settings:
    """Where Twinkle keeps its files, and what it may ask hubs for.

    Attributes:
        home: Twinkle's folder (``TWINKLE_HOME``; ``~/.cache/twinkle``). Absolute; it need not exist.
        offline: only use what is in a cache (``TWINKLE_OFFLINE`` or ``HF_HUB_OFFLINE``).
        locked: only use references that the project's lock pins (``TWINKLE_LOCKED``).
    """

    home: Path
    offline: bool = False
    locked: bool = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """The settings of ``environment`` (default: this process's)."""
        env = os.environ if environment is None else environment
        return cls(
            home=Path(env.get("TWINKLE_HOME") or "~/.cache/twinkle").expanduser().absolute(),
            offline=is_set(env.get("TWINKLE_OFFLINE")) or is_set(env.get("HF_HUB_OFFLINE")),
            locked=is_set(env.get("TWINKLE_LOCKED")),
        )
