"""Importing component code: the only place that does.

``load_installed`` and ``load_stored`` take a ``Grant``, and import nothing that it isn't for. Knows nothing of how a component was
found or why it is allowed.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

from twinkle_registry.errors import PluginLoadError, TrustError
from twinkle_registry.trust import Grant

if TYPE_CHECKING:
    from twinkle_registry.hub_package import HubFinder
    from twinkle_registry.store import StoredRepository


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


def load_stored(grant: Grant, finder: HubFinder, repository: StoredRepository, base: type | None, name: str | None) -> Any:
    """Import the entry of a repository from the store, and return its attribute.

    Without an entry (the older layout) it is the one class that derives from ``base``, or that of them which is called ``name``.

    Raises:
        TrustError: ``grant`` is no grant for these files.
        PluginLoadError: the module can't be imported, or doesn't hold what was asked for.
    """
    from twinkle_registry.hub_package import package_name

    request = checked(grant, "hub").request
    finder.admit(grant, repository)
    owner = f"{request.reference!r} ({request.repository}, sha256:{repository.digest[:12]})"
    package = package_name(repository.digest)
    if request.entry is None:
        return _only_subclass(_import_stored(package, owner, repository), owner, request.kind, base, name)
    module_name, _, attribute = request.entry.partition(":")
    module = _import_stored(f"{package}.{module_name}" if module_name else package, owner, repository)
    return attribute_of(module, attribute, owner, request.kind)


def _import_stored(name: str, owner: str, repository: StoredRepository) -> ModuleType:
    """``import_module``; says so where the code looks for its own files on ``sys.path``, where they never are."""
    try:
        return import_module(name, owner)
    except PluginLoadError as error:
        cause = error.__cause__
        sought = (cause.name or "").partition(".")[0] if isinstance(cause, ModuleNotFoundError) else ""
        if sought and any(path == f"{sought}.py" or path.startswith(f"{sought}/") for path in repository.sources):
            hint = f"{sought!r} is its own file, which only a relative import finds: from .{sought} import ..."
            raise PluginLoadError(f"{error} {hint}") from cause
        raise


def _only_subclass(module: ModuleType, owner: str, kind: str, base: type | None, name: str | None) -> type:
    if base is None:
        raise PluginLoadError(
            f"{owner} has no twinkle.toml, and nothing is known of what a {kind} derives from. It has to add one."
        )
    classes = {
        found
        for found in vars(module).values()
        if isinstance(found, type) and issubclass(found, base) and f"{found.__module__}.".startswith(f"{module.__name__}.")
    }
    # What __init__.py defines itself comes before what it takes from the other files.
    own = {found for found in classes if found.__module__ == module.__name__}
    choices = sorted(own or classes, key=lambda found: found.__name__)
    if name is not None:
        choices = [found for found in classes if found.__name__ == name]
    if len(choices) == 1:
        return choices[0]
    if not choices:
        wanted = f"class {name!r}" if name else "class"
        raise PluginLoadError(f"{owner} has no {wanted} in __init__.py that derives from {base.__module__}.{base.__qualname__}.")
    names = " or ".join(f"/{found.__name__}" for found in choices)
    raise PluginLoadError(f"{owner} has more than one {kind}. Say which, after the repository's name: {names}.")
