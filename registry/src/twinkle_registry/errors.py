"""The errors of manifests, discovery, references, trust and loading."""

from __future__ import annotations

from twinkle_hub.errors import TwinkleError


class RegistryError(TwinkleError):
    """The base of the registry's errors."""


class ManifestError(RegistryError, ValueError):
    """A ``twinkle.toml`` isn't valid; names file, line and key."""


class LockError(RegistryError, ValueError):
    """A ``twinkle.lock`` isn't valid, can't be written, or doesn't hold what is asked for; names file and key, or the reference."""


class PolicyError(RegistryError, ValueError):
    """A policy, the user's trust or a revocation list isn't valid or can't be written; names file, line and key."""


class ReferenceFormatError(RegistryError, ValueError):
    """A reference can't be read; shows what one looks like."""


class ComponentNotFoundError(RegistryError, ImportError):
    """No component has that name; holds the nearest names and the command that lists them all."""


class AmbiguousComponentError(RegistryError, ImportError):
    """Several plugins provide that name; lists the references that are unambiguous."""


class PluginLoadError(RegistryError, ImportError):
    """A plugin's code can't be imported, or doesn't hold what its manifest says; names plugin and entry."""


class TrustError(RegistryError, PermissionError):
    """Hub code isn't allowed to be loaded; says what would allow it."""


class ConfigError(TwinkleError, ValueError):
    """A component, a mesh or a call was configured with something that it doesn't take; names it, the key, and what is allowed."""
