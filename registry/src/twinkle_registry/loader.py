"""Importing component code: the only place that does.

``load_installed`` takes a ``Grant`` and nothing else, and gives the class, function or module that it stands for. Knows nothing of
how a component was found or why it is allowed.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from twinkle_registry.errors import PluginLoadError, TrustError
from twinkle_registry.trust import Grant


def load_installed(grant: Grant) -> Any:
    """Import the module of an installed plugin's entry, and return its attribute; without one, the module.

    Raises:
        TrustError: ``grant`` is no grant for an installed plugin.
        PluginLoadError: the module can't be imported, or has no such attribute; names distribution, entry and cause.
    """
    request = checked(grant, "installed").request
    module_name, _, attribute = (request.entry or "").partition(":")
    name = f"{request.package}.{module_name}" if module_name else str(request.package)
    module = import_module(name, f"{request.distribution} ({request.kind} entry {request.entry!r})")
    return attribute_of(module, attribute, str(request.distribution), request.kind) if attribute else module


def checked(grant: Grant, source: str) -> Grant:
    """Return ``grant`` if it is one for ``source``.

    Raises:
        TrustError: it isn't.
    """
    if not isinstance(grant, Grant) or grant.request.source != source:
        raise TrustError(f"Loading {source} code takes a Grant for it, not {grant!r}.")
    return grant


def import_module(name: str, owner: str) -> ModuleType:
    """Import ``name``; ``owner`` is whom an error blames.

    Raises:
        PluginLoadError: the import failed, in whatever way.
    """
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # code of others: it may raise anything, and sys.exit() isn't for it to call
        raise PluginLoadError(
            f"{owner} can't be loaded: importing {name!r} raised {type(error).__name__}: {error}. See: twinkle plugins doctor"
        ) from error


def attribute_of(module: ModuleType, path: str, owner: str, kind: str) -> Any:
    """The attribute ``path`` (dotted) of ``module``.

    Raises:
        PluginLoadError: there is none.
    """
    found: Any = module
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise PluginLoadError(
                f"{owner} can't be loaded: its manifest gives the {kind} entry '{path}' in {module.__name__!r}, "
                f"and {module.__file__} has no such attribute. Its author has to mend twinkle.toml."
            ) from None
    return found
