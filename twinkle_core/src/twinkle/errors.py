"""The errors that Twinkle raises.

One base, :class:`TwinkleError`; each error also derives from the built-in exception that fits, and pickles. A message says
what happened, which plugin, reference, row or rank it concerns, and what to do next. Knows nothing of who raises what.
"""

from __future__ import annotations

from twinkle_hub.errors import HubError, TwinkleError
from twinkle_registry.errors import (
    AmbiguousComponentError,
    ComponentNotFoundError,
    ConfigError,
    LockError,
    ManifestError,
    PluginLoadError,
    PolicyError,
    ReferenceFormatError,
    RegistryError,
    TrustError,
)


class MeshError(TwinkleError, ValueError):
    """A device mesh doesn't fit itself, the world size, or the data that it should spread."""


class DataError(TwinkleError, ValueError):
    """A data set or one of its rows can't be used as it is; names the data set, the row and the fields."""


class AdapterError(TwinkleError, KeyError):
    """An adapter is named that the model doesn't have, or that it already has."""

    def __str__(self) -> str:  # KeyError would show the repr
        return str(self.args[0]) if self.args else ""


class CheckpointError(TwinkleError, OSError):
    """A checkpoint can't be read or written; what was there before is untouched."""


class MissingRequirementError(TwinkleError, ImportError):
    """Something needs a package that isn't installed; the message holds the command that installs it."""


__all__ = [
    "AdapterError",
    "AmbiguousComponentError",
    "CheckpointError",
    "ComponentNotFoundError",
    "ConfigError",
    "DataError",
    "HubError",
    "LockError",
    "ManifestError",
    "MeshError",
    "MissingRequirementError",
    "PluginLoadError",
    "PolicyError",
    "ReferenceFormatError",
    "RegistryError",
    "TrustError",
    "TwinkleError",
]
