"""The registry: which plugins and components there are, and how to get one by its reference.

Ties discovery, references, the project, hooks, trust and loading together. Knows nothing of training: a kind is a name here, and
whoever makes the registry says what a kind's base class is. Importing this module imports neither pydantic nor pluggy nor a plugin.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from twinkle_hub.settings import Settings
from twinkle_registry.discovery import MANIFEST
from twinkle_registry.errors import ConfigError, TrustError
from twinkle_registry.index import Index, read_index
from twinkle_registry.rows import ComponentRow, PluginRow, Problem

if TYPE_CHECKING:
    from twinkle_hub.hubs import Hubs
    from twinkle_registry.hooks import Hooks
    from twinkle_registry.hub_loading import HubLoaded, HubLoading
    from twinkle_registry.inspection import Inspection
    from twinkle_registry.lock import LockFile
    from twinkle_registry.project import Project
    from twinkle_registry.reference import HubReference
    from twinkle_registry.store import StoredRepository
    from twinkle_registry.trust import Answer, Grant, LoadRequest


LOOK_AGAIN_S = 0.05
"""How long a name that was loaded before is answered from memory before the disk is looked at again. Looking takes some 50 µs,
answering 1 µs: at this interval what looking costs is a thousandth of the time."""

_LOAD_HOOKS = frozenset({"twinkle_check_load", "twinkle_component_loaded"})


class Resolved(NamedTuple):
    """What a reference stands for.

    Attributes:
        kind: the kind that was asked for.
        reference: the reference as it was given.
        component: the installed component, or ``None`` where it is on a hub.
        hub: the reference to a hub, with the project's mirror applied, or ``None`` where it is installed.
        asked: that reference before the mirror; the lock knows it by this one.
    """

    kind: str
    reference: str
    component: ComponentRow | None
    hub: HubReference | None
    asked: HubReference | None = None


class Registry:
    """Plugins and components of one import path, one project and one home."""

    def __init__(
        self,
        *,
        path: Sequence[str] | None = None,
        project: Project | None = None,
        home: Path | None = None,
        hook_specifications: ModuleType | str | None = None,
        base_class: Callable[[str], type] | None = None,
        ask: Callable[[Inspection], Answer] | None = None,
    ) -> None:
        """Make a registry; nothing is read until it is asked for.

        Args:
            path: the folders to look for distributions in (default: ``sys.path``, as it is at each question).
            project: the project (default: the one around the working folder).
            home: Twinkle's folder (default: from the environment).
            hook_specifications: the module that specifies the hooks, or its name, imported when a hook is first called.
            base_class: gives the base class of a kind; asked for hub repositories that have no manifest.
            ask: asks a person whether code from a hub may be loaded; without it nobody is asked.
        """
        self._path = None if path is None else list(map(os.path.abspath, path))
        self._project = project
        self._settings = Settings.from_environment()
        self._home = home or self._settings.home
        self._hook_specifications = hook_specifications
        self._base_class = base_class
        self._ask = ask
        self._hub_references: dict[tuple[str, str], Resolved] = {}
        self._index: Index | None = None
        self._index_path: list[str] = []
        self._sys_path: list[str] = []
        self._look_again_at = 0.0
        self._loaded: dict[tuple[str, str], tuple[Index, Any]] = {}
        self._warned: set[str] = set()
        self._runnable: set[tuple[str, str, str]] = set()

    def plugins(self) -> list[PluginRow]:
        """Every installed plugin that has a valid manifest, by distribution."""
        return list(self._read().plugins)

    def components(self, kind: str | None = None) -> list[ComponentRow]:
        """Every component of the installed plugins, or those of one kind."""
        return [row for row in self._read().components if kind is None or row.kind == kind]

    def problems(self) -> list[Problem]:
        """The plugins that are announced and can't be listed, and why."""
        return list(self._read().problems)

    @cached_property
    def project(self) -> Project:
        """The project: its aliases and mirrors.

        Raises:
            ManifestError: its file isn't valid; names file, line and key.
        """
        from twinkle_registry.project import find_project

        return self._project if self._project is not None else find_project()

    @cached_property
    def hooks(self) -> Hooks:
        """The hooks that installed plugins implement."""
        from twinkle_registry.hooks import Hooks

        return Hooks(self.plugins, self._load_hook_module, self._hook_specifications)

    @cached_property
    def hubs(self) -> Hubs:
        """The hubs: ``hf``, ``ms``, ``file``, and those that plugins add with the hook ``twinkle_register_hub``."""
        from twinkle_hub.errors import HubError
        from twinkle_hub.hubs import Hubs

        hubs = Hubs.standard()
        for result in self.hooks.results("twinkle_register_hub"):
            if result.error is not None:
                continue
            for hub in result.value if isinstance(result.value, Iterable) else [result.value]:
                try:
                    hubs.add(hub, provider=result.plugin.label)
                except HubError as error:
                    self._warn(f"A hub is left out: {error}")
        return hubs

    def find(self, kind: str, reference: str) -> Resolved:
        """What ``reference`` stands for: a hub reference, a project alias, ``distribution/Name`` or a bare ``Name``, in this order.

        A bare name never leads to a hub, unless an alias in the project's file says so. Asks no hub.

        Raises:
            ReferenceFormatError: it can't be read.
            ComponentNotFoundError: nothing has that name; the message holds the nearest ones.
            AmbiguousComponentError: more than one plugin has it.
            ManifestError: the project's file isn't valid.
            HubError: the project's mirror for it can't be used.
        """
        return self._find(kind, reference, self._read)

    def _find(self, kind: str, reference: str, index: Callable[[], Index]) -> Resolved:
        from twinkle_registry.reference import HubReference, parse_reference

        parsed = parse_reference(self._target(reference))
        if isinstance(parsed, HubReference):
            return Resolved(kind, reference, None, self._mirrored(parsed), parsed)
        from twinkle_registry.resolution import resolve_installed

        return Resolved(kind, reference, resolve_installed(kind, parsed, index().components), None)

    def _target(self, reference: str) -> str:
        return reference if "://" in reference else self.project.alias.get(reference, reference)

    def load(self, kind: str, reference: str) -> Any:
        """The class or function that ``reference`` stands for.

        What is installed is remembered for as long as the index stays as it is, and that is looked at every ``LOOK_AGAIN_S``: a
        new name is found at once, an uninstalled or newly ambiguous one is noticed that much later. The door isn't asked again for
        what is remembered, since it opens for everything installed; but where a plugin implements ``twinkle_check_load`` or
        ``twinkle_component_loaded``, nothing is remembered, and it is asked and told at every load. So is the door, for code
        from hubs.

        Raises:
            TrustError: it isn't allowed to be loaded; of a hub's repository nothing was fetched then.
            PluginLoadError: its plugin's requirements aren't met, or its code can't be imported.
            RegistryError: as ``find``.
            HubError: the repository can't be fetched.
        """
        known = self._loaded.get((kind, reference))
        if known is not None and known[0] is self._recent():
            return known[1]
        if (seen := self._hub_references.get((kind, reference))) is not None:
            return self._load_from_hub(seen).found
        index = self._recent() if "://" in reference else self._read()
        resolved = self._find(kind, reference, lambda: index)
        if resolved.hub is not None:
            loaded = self._load_from_hub(resolved)
            if "://" in reference and not reference.startswith("file://."):  # those depend on the working folder
                self._hub_references[kind, reference] = resolved
            return loaded.found
        assert resolved.component is not None
        found = self._load_installed(reference, resolved.component, index)
        if _LOAD_HOOKS.isdisjoint(index.hook_names):
            self._loaded[kind, reference] = index, found
        return found

    def check_config(self, kind: str, reference: str, config: Mapping[str, Any]) -> None:
        """Check ``config`` against what the component's manifest declares; one that declares nothing takes anything.

        A component on a hub is loaded for this: its manifest is in its repository.

        Raises:
            ConfigError: a key is unknown or a value doesn't fit; names component, key, and what is allowed.
            RegistryError: as ``find``, and for a component on a hub as ``load``.
        """
        if not config:
            return
        resolved = self.find(kind, reference)
        if resolved.hub is not None:
            loaded = self._load_from_hub(resolved)
            name, label, schema = getattr(loaded.found, "__name__", reference), loaded.label, loaded.config
        else:
            assert resolved.component is not None
            name, label, schema = resolved.component.name, resolved.component.label, resolved.component.config
        from twinkle_registry.config_schema import config_errors

        if errors := config_errors(schema, config):
            raise ConfigError(f"The {kind} {name!r} ({label}) doesn't take this configuration: {'; '.join(errors)}.")

    def authorize(self, request: LoadRequest) -> Grant:
        """Permission to load what ``request`` says: see ``twinkle_registry.trust.authorize`` for who is asked.

        Raises:
            TrustError: it isn't allowed; says what would allow it, or who denies it.
        """
        if request.source == "installed":  # needs neither policies nor a lock
            from twinkle_registry.trust import authorize

            return authorize(request, denial=self._denial)
        return self._hub_loading.authorize(request)

    def authorize_folder(self, kind: str, reference: str, folder: Path) -> Grant:
        """Permission for something else than the registry to execute the Python files in ``folder``: a model's own code.

        They are decided on by their digest and their owner, like a component.

        Args:
            kind: what the rules know it as, such as ``model``.
            reference: what ``folder`` was fetched as; the project's mirror is applied. A path is its own repository.
            folder: where the files are; the others in it don't count.

        Raises:
            TrustError: it isn't allowed; says what would allow it, or who denies it.
            HubError: ``reference`` can't be read.
        """
        from twinkle_hub.hubs import locate
        from twinkle_hub.repository import RepoRef

        found = locate(reference, mirror=self.project.mirror)
        repository = found if isinstance(found, RepoRef) else RepoRef("file", str(found.absolute()))
        return self._hub_loading.authorize_folder(kind, repository, folder)

    def inspect(self, reference: str) -> Inspection:
        """What is in the repository that ``reference`` means now, whatever the lock says. It is fetched; nothing of it is executed.

        Raises:
            ReferenceFormatError: it can't be read, or means something installed.
            HubError: the repository can't be fetched.
        """
        from twinkle_registry.errors import ReferenceFormatError
        from twinkle_registry.reference import HubReference, parse_reference

        parsed = parse_reference(self._target(reference))
        if not isinstance(parsed, HubReference):
            raise ReferenceFormatError(f"{reference!r} means something installed; only what is on a hub is looked into this way.")
        return self._hub_loading.inspect(reference, self._mirrored(parsed))

    def stored(self, digest: str) -> tuple[Grant, StoredRepository]:
        """The files with ``digest`` and the permission to load them: what unpickling a class of theirs in a new process takes.

        Files that are missing are fetched from where the lock says that they are.

        Raises:
            TrustError: nobody knows the digest, or it isn't allowed.
            HubError: the files can't be fetched.
        """
        return self._hub_loading.stored(digest)

    def provenance(self, digest: str) -> LoadRequest | None:
        """Where the files with ``digest`` come from that were loaded in this process: the request that was allowed; else None."""
        return self._hub_loading.loaded(digest)

    @cached_property
    def lock(self) -> LockFile:
        """The project's ``twinkle.lock``, as it was when it was first needed; empty where there is none.

        Raises:
            LockError: it isn't valid; names file, line and key.
        """
        from twinkle_registry.lock import find_lock

        return find_lock(self.project)

    @cached_property
    def _hub_loading(self) -> HubLoading:
        from twinkle_registry.hub_loading import HubLoading

        return HubLoading(
            home=self._home,
            settings=self._settings,
            hubs=lambda: self.hubs,
            lock=lambda: self.lock,
            denial=self._denial,
            checks_loads=lambda: "twinkle_check_load" in self._recent().hook_names,
            asker=self._ask,
            warn=self._warn,
            base_class=self._base_class,
            check_requirements=self._check_requirements,
        )

    def _denial(self, request: LoadRequest) -> str | None:
        """Why a plugin denies it; one that was installed just now is asked ``LOOK_AGAIN_S`` later, as ``load`` says."""
        if "twinkle_check_load" not in self._recent().hook_names:
            return None
        for plugin, reason, error in self.hooks.results("twinkle_check_load", request=request):
            if isinstance(error, TrustError):
                return f"{plugin.label} denies it: {error}"
            if error is None and reason:
                return f"{plugin.label} denies it: {reason}"
            # A check that can't be made doesn't bring down what is installed, but it doesn't let strangers in either.
            if error is not None and request.source == "hub":
                return f"{plugin.label} has to check it, and its check failed: {error}"
        return None

    def _load_installed(self, reference: str, row: ComponentRow, index: Index) -> Any:
        from twinkle_registry.loader import load_installed
        from twinkle_registry.trust import LoadRequest

        owner = (row.distribution, row.package)
        self._check_requirements(next(plugin for plugin in index.plugins if (plugin.distribution, plugin.package) == owner))
        request = LoadRequest("installed", reference, row.kind, row.entry, distribution=row.label, package=row.package)
        found = load_installed(self.authorize(request))
        self._announce(request, found)
        return found

    def _load_hook_module(self, plugin: PluginRow) -> ModuleType:
        from twinkle_registry.loader import load_installed
        from twinkle_registry.trust import LoadRequest, authorize

        self._check_requirements(plugin)
        request = LoadRequest(
            "installed", plugin.label, "hooks", plugin.hook_module, distribution=plugin.label, package=plugin.package
        )
        # Not self.authorize: the check that it would ask may be in this very module.
        module = load_installed(authorize(request))
        assert isinstance(module, ModuleType)
        return module

    def _load_from_hub(self, resolved: Resolved) -> HubLoaded:
        assert resolved.hub is not None
        assert resolved.asked is not None
        loaded = self._hub_loading.load(resolved.kind, resolved.reference, resolved.hub, resolved.asked)
        if loaded.first:
            self._announce(loaded.request, loaded.found)
        return loaded

    def _mirrored(self, reference: HubReference) -> HubReference:
        from dataclasses import replace

        from twinkle_hub.hubs import locate
        from twinkle_hub.repository import RepoRef

        if self.project.mirror:
            found = locate(reference.repository_reference, mirror=self.project.mirror)
            target = found if isinstance(found, RepoRef) else RepoRef("file", str(found.absolute()))
            name = str(target.at(None)).partition("://")[2]
            reference = replace(reference, scheme=target.scheme, repository=name, revision=target.revision)
        if reference.scheme == "file" and reference.component is None:
            return _with_component(reference)
        return reference

    def _announce(self, request: LoadRequest, found: Any) -> None:
        if "twinkle_component_loaded" in self._recent().hook_names:
            self.hooks.call("twinkle_component_loaded", request=request, component=found)

    def _check_requirements(self, plugin: PluginRow) -> None:
        key = (plugin.distribution, plugin.version, plugin.location)
        if key not in self._runnable:
            from twinkle_registry.requirements import check_requirements

            check_requirements(plugin)
            self._runnable.add(key)

    def _recent(self) -> Index:
        """The index as it was at most ``LOOK_AGAIN_S`` ago, for the ``sys.path`` of now."""
        if self._index is not None and time.monotonic() < self._look_again_at and sys.path == self._sys_path:
            return self._index
        return self._read()

    def _read(self) -> Index:
        """The index as it is now; what is wrong in it is logged once."""
        self._look_again_at = time.monotonic() + LOOK_AGAIN_S
        self._sys_path = sys.path.copy()
        path = self._path if self._path is not None else _import_path()
        if self._index is None or self._index_path != path or not self._index.stamps.hold():
            self._index = read_index(path, self._home, follow_finders=self._path is None)
            self._index_path = path
            self._loaded.clear()
            for problem in self._index.problems:
                self._warn(f"The plugin {problem.distribution} {problem.version} is left out: {problem.message}")
        return self._index

    def _warn(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            import logging  # takes longer to import than an index to read

            logging.getLogger(__name__).warning("%s", message)


def _import_path() -> list[str]:
    # What isn't a string, the import system passes over, too. Symlinks stay: modules are found under the names with them.
    return list(dict.fromkeys(map(os.path.abspath, (folder for folder in sys.path if isinstance(folder, str)))))


def _with_component(reference: HubReference) -> HubReference:
    """A ``file`` reference whose path goes on beyond the repository's folder: what follows is the component's name."""
    from dataclasses import replace

    from twinkle_hub.repository import RepoRef

    path = Path(RepoRef.parse(reference.repository_reference).repo_id)
    if path.exists() or not path.parent.is_dir() or not path.name.isidentifier():
        return reference
    if not any((path.parent / name).exists() for name in (MANIFEST, "__init__.py", "refs")):
        return reference
    return replace(reference, repository=reference.repository.rpartition("/")[0], component=path.name)
