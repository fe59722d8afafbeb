"""The project: its aliases for components and its mirrors for repositories.

A project is a folder with a ``twinkle.toml`` that has no ``[plugin]`` table; it is found from the working folder upwards. Knows
nothing of installed plugins, and fetches nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twinkle_hub.errors import HubError
from twinkle_hub.repository import RepoRef
from twinkle_registry._toml import line_of, read_toml, unknown_key
from twinkle_registry.discovery import MANIFEST
from twinkle_registry.errors import ManifestError

_KEYS = ("schema", "alias", "mirror")


@dataclass(frozen=True)
class Project:
    """What a project's ``twinkle.toml`` says.

    Attributes:
        file: the file, or ``None`` where there is no project.
        alias: from a name of the project's own to a reference.
        mirror: from a repository (``ms://swift/self-cognition``) to the one to use in its place; or to an absolute path.
    """

    file: Path | None = None
    alias: Mapping[str, str] = field(default_factory=dict)
    mirror: Mapping[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path | None:
        """The project's folder, or ``None`` where there is no project."""
        return self.file.parent if self.file else None


def find_project(start: Path | None = None) -> Project:
    """The project around the folder ``start`` (default: the working folder), or an empty one.

    Raises:
        ManifestError: the nearest ``twinkle.toml`` isn't valid; names file, line and key.
    """
    folder = (start or Path.cwd()).absolute()
    for candidate in (folder, *folder.parents):
        file = candidate / MANIFEST
        if file.is_file():
            project = _read(file)
            if project is not None:
                return project
    return Project()


def _read(file: Path) -> Project | None:
    """What ``file`` says, or ``None`` where it is the manifest of a plugin."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ManifestError(f"{file}: can't be read: {error.strerror or error}.") from None
    text, data = read_toml(content, str(file))
    if "plugin" in data:
        return None
    for key in data:
        if key not in _KEYS:
            raise ManifestError(f"{file}:{line_of(text, [key])}: {key}: {unknown_key(key, _KEYS)}.")
    schema = data.get("schema", 1)
    if isinstance(schema, bool) or schema != 1:
        raise ManifestError(f"{file}:{line_of(text, ['schema'])}: schema: has to be 1, and this is {schema!r}.")
    alias = _strings(file, text, data, "alias")
    mirror = {}
    for source, target in _strings(file, text, data, "mirror").items():
        try:
            RepoRef.parse(source)
            mirror[source] = _absolute(file.parent, target)
        except HubError as error:
            raise ManifestError(f"{file}:{line_of(text, ['mirror', source])}: mirror.{source}: {error}") from None
    return Project(file, alias, mirror)


def _strings(file: Path, text: str, data: Mapping[str, Any], table: str) -> dict[str, str]:
    found = data.get(table, {})
    if not isinstance(found, dict):
        raise ManifestError(f"{file}:{line_of(text, [table])}: {table}: has to be a table, and this is {found!r}.")
    for key, value in found.items():
        if not isinstance(value, str) or not value or not key:
            line = line_of(text, [table, key])
            raise ManifestError(f"{file}:{line}: {table}.{key}: has to be a reference in quotes, and this is {value!r}.")
    return found


def _absolute(folder: Path, target: str) -> str:
    if "://" in target:
        return str(RepoRef.parse(target, base=folder))
    return str((folder / Path(target).expanduser()).resolve())
