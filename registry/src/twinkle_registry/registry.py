"""The registry: which plugins and components there are, and how to get one by its reference.

Ties discovery, references, the project, trust and loading together. Knows nothing of training: a kind is a name here, and the base
class of a kind is asked of whoever makes the registry. Importing this module imports neither pydantic nor pluggy nor any plugin.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from twinkle_hub.settings import Settings
from twinkle_registry.errors import ComponentConfigError, TrustError
from twinkle_registry.index import Index, read_index
from twinkle_registry.reference import HubReference, parse_reference
from twinkle_registry.resolution import resolve_installed
from twinkle_registry.rows import ComponentRow, PluginRow, Problem

if TYPE_CHECKING:
    from twinkle_registry.project import Project
    from twinkle_registry.trust import LoadRequest

_logger = logging.getLogger(__name__)


class Resolved(NamedTuple):
    """What a reference stands for.

    Attributes:
        kind: the kind that was asked for.
        reference: the reference as it was given.
        component: the installed component, or ``None`` where it is on a hub.
        hub: the reference to a hub, with the project's mirror applied, or ``None`` where it is installed.
    """

    kind: str
    reference: str
    component: ComponentRow | None
    hub: HubReference | None


class Registry:
    """Plugins and components of one import path, one project and one home."""

    def __init__(self, *, path: Sequence[str] | None = None, project: Project | None = None, home: Path | None = None) -> None:
        """Make a registry; nothing is read until it is asked for.

        Args:
            path: the folders to look for distributions in (default: ``sys.path``, as it is at each question).
            project: the project (default: the one around the working folder).
            home: Twinkle's folder (default: from the environment).
        """
        self._path = None if path is None else list(map(os.path.abspath, path))
        self._project = project
        self._home = home or Settings.from_environment().home
        self._index: Index | None = None
        self._index_path: list[str] = []
        self._warned: set[Problem] = set()
        self._met: set[PluginRow] = set()

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

    def find(self, kind: str, reference: str) -> Resolved:
        """What ``reference`` stands for: a hub reference, a project alias, ``distribution/Name`` or a bare ``Name``, in this order.

        A bare name never leads to the network unless the project's file says so in an alias.

        Raises:
            ReferenceFormatError: it can't be read.
            ComponentNotFoundError: nothing has that name; the message holds the nearest ones.
            AmbiguousComponentError: more than one plugin has it.
            ManifestError: the project's file isn't valid.
        """
        target = reference if "://" in reference else self.project.alias.get(reference, reference)
        parsed = parse_reference(target)
        if isinstance(parsed, HubReference):
            mirrored = parse_reference(self.project.mirrored(target))
            assert isinstance(mirrored, HubReference)
            return Resolved(kind, reference, None, mirrored)
        return Resolved(kind, reference, resolve_installed(kind, parsed, self._read().components), None)

    def load(self, kind: str, reference: str) -> Any:
        """The class or function that ``reference`` stands for.

        Raises:
            TrustError: it isn't allowed to be loaded.
            PluginLoadError: its plugin's requirements aren't met, or its code can't be imported.
            RegistryError: as ``find``.
        """
        from twinkle_registry.trust import LoadRequest, authorize

        resolved = self.find(kind, reference)
        row = resolved.component
        if row is None:
            raise TrustError(f"{reference!r} is code from a hub, which can't be loaded yet.")
        self._check_requirements(row)
        request = LoadRequest("installed", reference, kind, row.entry, distribution=row.label, package=row.package)
        from twinkle_registry.loader import load_installed

        return load_installed(authorize(request, denial=self._denial))

    def check_config(self, kind: str, reference: str, config: Mapping[str, Any]) -> None:
        """Check ``config`` against what the component's manifest declares; one that declares nothing takes anything.

        Raises:
            ComponentConfigError: a key is unknown or a value doesn't fit; names component, key, and what is allowed.
            RegistryError: as ``find``.
        """
        row = self.find(kind, reference).component
        if row is None or not config:
            return
        from twinkle_registry.config_schema import config_errors

        if errors := config_errors(row.config, config):
            raise ComponentConfigError(
                f"The {kind} {row.name!r} ({row.label}) doesn't take this configuration: {'; '.join(errors)}."
            )

    def _denial(self, request: LoadRequest) -> str | None:
        return None

    def _check_requirements(self, row: ComponentRow) -> None:
        plugin = next(plugin for plugin in self._read().plugins if (plugin.location, plugin.label) == (row.location, row.label))
        key = plugin._replace(requires=tuple(plugin.requires), hook_names=tuple(plugin.hook_names))
        if key not in self._met:
            from twinkle_registry.requirements import check_requirements

            check_requirements(plugin)
            self._met.add(key)

    def _read(self) -> Index:
        """The index as it is now; what is wrong in it is logged once."""
        path = self._path if self._path is not None else list(dict.fromkeys(map(os.path.abspath, sys.path)))
        if self._index is None or self._index_path != path or not self._index.stamps.hold():
            self._index = read_index(path, self._home, follow_finders=self._path is None)
            self._index_path = path
            for problem in self._index.problems:
                if problem not in self._warned:
                    self._warned.add(problem)
                    _logger.warning("The plugin %s %s is left out: %s", *problem[:2], problem.message)
        return self._index
