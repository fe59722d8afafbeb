"""Which plugins are installed, found without importing any of them.

``discover`` reads ``entry_points.txt`` (group ``twinkle.plugins``) of every distribution on a path, and the static manifest in the
package that it names. Knows nothing of caches (it can be told what is already known) and executes no plugin's code.
"""

# ruff: noqa: PTH114, PTH116, PTH118, PTH119, PTH120, PTH123 (some thousand paths, and a Path costs more than its use)

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from twinkle_registry.errors import ManifestError

GROUP = "twinkle.plugins"
MANIFEST = "twinkle.toml"
"""The name of a plugin's manifest; a project's file has the same."""

Stamp = tuple[int, int] | None
"""A file's modification time in nanoseconds and its size; ``None`` where there is no such file."""


class Found(NamedTuple):
    """One plugin, or what is wrong with it.

    Attributes:
        manifest: the path of its manifest, or where it should be.
        stamp: the manifest's stamp when it was read.
        watched: other files whose stamp decides whether this is still true; the manifest is in it where it can change on its own.
        plugin: the columns of its ``PluginRow``, or ``None`` where there is a problem.
        components: for each component kind, name, entry, pure, config.
        problem: the columns of its ``Problem``, or ``None``.
    """

    manifest: str
    stamp: Stamp
    watched: Sequence[str]
    plugin: Sequence[Any] | None
    components: Sequence[Sequence[Any]]
    problem: Sequence[str] | None


def stamp_of(path: str) -> Stamp:
    """The stamp of the file at ``path``."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def canonical_name(distribution: str) -> str:
    """The form of a distribution's name in which two that ``pip`` takes for the same are equal."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def discover(path: Sequence[str], known: Mapping[str, Found], *, follow_finders: bool) -> Iterator[Found]:
    """Yield every plugin on ``path``, of each distribution the one that comes first.

    ``known`` holds earlier results by the manifest's path; one whose manifest hasn't changed isn't read again.
    ``follow_finders`` also asks the interpreter's import finders for packages that don't lie on ``path`` (some editable installs).
    """
    seen: set[str] = set()
    for folder in path:
        for name in sorted(_metadata_folders(folder)):
            distribution = canonical_name(name.rpartition(".")[0].partition("-")[0])
            if distribution in seen:
                continue
            seen.add(distribution)
            metadata = os.path.join(folder, name)
            for package in _packages(metadata):
                yield _read(metadata, package, path, known, follow_finders)


def _metadata_folders(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            # pip renames what it is about to remove to '~…'.
            return [entry.name for entry in entries if entry.name.endswith((".dist-info", ".egg-info")) and entry.name[0] != "~"]
    except OSError:
        return []


def _packages(metadata: str) -> list[str]:
    """The packages that a distribution announces as plugins."""
    try:
        with open(os.path.join(metadata, "entry_points.txt"), encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError:
        return []
    if GROUP not in text:
        return []
    packages, in_group = [], False
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            in_group = line == f"[{GROUP}]"
        elif in_group and line and line[0] not in "#;":
            packages.append(line.partition("=")[2].partition(":")[0].strip())
    return packages


def _read(metadata: str, package: str, path: Sequence[str], known: Mapping[str, Found], follow_finders: bool) -> Found:
    distribution, version = _name_and_version(metadata)
    location = _package_folder(package, [os.path.dirname(metadata), *path], follow_finders)
    manifest = os.path.join(location or os.path.join(os.path.dirname(metadata), *package.split(".")), MANIFEST)
    stamp = stamp_of(manifest)
    earlier = known.get(manifest)
    if earlier and earlier.stamp == stamp and earlier.plugin and list(earlier.plugin[:2]) == [distribution, version]:
        return earlier
    watched = _files_that_change_alone(metadata, manifest)
    if location is None:
        message = (
            f"its package {package!r}, which it announces as a plugin, can't be found. Reinstall it: pip install {distribution}"
        )
        return _broken(manifest, stamp, watched, distribution, version, message)
    if stamp is None:
        message = f"its package {package!r} has no {MANIFEST}, so nothing is known of its components. Its author has to add one."
        return _broken(manifest, stamp, watched, distribution, version, message)
    # The one import of pydantic: it costs more than everything else here together, so only what is new pays for it.
    from twinkle_registry.manifest import load_manifest

    try:
        content = load_manifest(Path(manifest))
    except ManifestError as error:
        first, *others = str(error).splitlines()
        more = f" (and {len(others)} more: twinkle plugins doctor)" if others else ""
        return _broken(manifest, stamp, watched, distribution, version, first + more)
    table = content.plugin
    hooks = (table.hooks.module, table.hooks.names) if table.hooks else ("", [])
    texts = (table.name, table.summary, table.license)
    plugin = [distribution, version, *texts, package, os.path.dirname(manifest), table.api, table.requires, *hooks]
    components = [
        [row.kind, row.name, row.entry, row.pure, {key: field.as_data() for key, field in row.config.items()}]
        for row in content.component
    ]
    return Found(manifest, stamp, watched, plugin, components, None)


def _broken(manifest: str, stamp: Stamp, watched: Sequence[str], distribution: str, version: str, message: str) -> Found:
    # A broken plugin may be half installed, or about to be repaired by hand: look at its manifest each time.
    return Found(manifest, stamp, sorted({*watched, manifest}), None, [], [distribution, version, manifest, message])


def _files_that_change_alone(metadata: str, manifest: str) -> list[str]:
    """The files of this plugin that can change while the folder that holds its metadata stays as it is."""
    if metadata.endswith(".egg-info"):
        return [manifest, os.path.join(metadata, "entry_points.txt")]
    outside = not manifest.startswith(os.path.dirname(metadata) + os.sep)
    return [manifest] if outside or os.path.islink(os.path.dirname(manifest)) else []


def _package_folder(package: str, folders: Sequence[str], follow_finders: bool) -> str | None:
    """The folder of ``package``: the first that has a manifest, else the first that there is."""
    parts = package.split(".")
    if not all(part.isidentifier() for part in parts):
        return None
    places = [os.path.join(folder, *parts) for folder in folders]
    if follow_finders and not any(stamp_of(os.path.join(place, MANIFEST)) for place in places):
        from importlib.util import find_spec  # asks the finders for the top package, and so executes nothing

        try:
            spec = find_spec(parts[0])
        except (ImportError, ValueError):
            spec = None
        places += [os.path.join(folder, *parts[1:]) for folder in (spec.submodule_search_locations if spec else None) or ()]
    with_manifest = (place for place in places if stamp_of(os.path.join(place, MANIFEST)))
    return next(with_manifest, None) or next(filter(os.path.isdir, places), None)


def _name_and_version(metadata: str) -> tuple[str, str]:
    """From the metadata's headers, or else from the folder's name."""
    name, _, version = os.path.basename(metadata).rpartition(".")[0].partition("-")
    for file in ("METADATA", "PKG-INFO"):
        try:
            with open(os.path.join(metadata, file), encoding="utf-8", errors="replace") as lines:
                for line in lines:
                    if line in ("\n", "\r\n"):
                        break
                    key, _, value = line.partition(":")
                    if key == "Name":
                        name = value.strip()
                    elif key == "Version":
                        version = value.strip()
            break
        except OSError:
            continue
    return name, version
