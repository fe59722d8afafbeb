"""The index of installed plugins: what discovery found, remembered in a file.

One JSON file per import path, in Twinkle's home. It holds while the folders on the path and the few files that can change on their
own have the modification times that they had. Writing is atomic; a file that can't be used is ignored and made anew.
"""

from __future__ import annotations

import gc
import json
import os
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from itertools import accumulate, pairwise, repeat
from pathlib import Path
from typing import Any, NamedTuple

from twinkle_registry.discovery import Found, Stamp, discover, stamp_of
from twinkle_registry.rows import ComponentRow, PluginRow, Problem

_FORMAT = 3
_KEPT_FILES = 32
_TICK_NS = 50_000_000  # file systems round times to their clock's tick, at most some 10 ms
_COARSE_TICK_NS = 2_000_000_000  # ... or to one or two whole seconds (FAT, HFS+, some network file systems)


Section = bytes | memoryview
"""A part of the file, in JSON; a view of it until it is asked for."""


def _decoded(section: Section) -> Any:
    return json.loads(bytes(section))


def _column(values: Sequence[Any]) -> Any:
    """One column of the plugins: its values, or, where few differ, those and where each stands, which is faster to read."""
    texts = [json.dumps(value) for value in values]
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    if len(places) > 200:
        return list(values)
    return {"values": [json.loads(text) for text in places], "at": [places[text] for text in texts]}


def _rows(columns: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    """The rows of encoded columns."""
    return zip(*(c if isinstance(c, list) else map(c["values"].__getitem__, c["at"]) for c in columns), strict=True)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Keep the garbage collector out of making thousands of objects that all stay: it would take a third of the time."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


class Stamps(NamedTuple):
    """What the index depends on: folders with their modification times, files with theirs and their sizes."""

    folders: list[tuple[str, int | None]]
    files: list[tuple[str, Stamp]]

    def hold(self) -> bool:
        """Whether everything is as it was."""
        return all(_folder_time(folder) == then for folder, then in self.folders) and all(
            stamp_of(file) == then for file, then in self.files
        )


class Index:
    """Plugins, components and problems at one moment; each is decoded when it is first asked for."""

    def __init__(self, stamps: Stamps, plugins: Section, components: Section, problems: Section) -> None:
        self.stamps = stamps
        self._plugins = plugins
        self._components = components
        self._problems = problems

    @cached_property
    def plugins(self) -> list[PluginRow]:
        """Every plugin that has a valid manifest, by distribution and package."""
        with _collector_paused():
            # What PluginRow._make does, without its Python frame for each of a thousand rows.
            return list(map(tuple.__new__, repeat(PluginRow), _rows(_decoded(self._plugins))))

    @cached_property
    def components(self) -> list[ComponentRow]:
        """Every component of these plugins, by distribution, package, and the order in the manifest."""
        rows = []
        for place, kind, name, entry, pure, config in _decoded(self._components):
            plugin = self.plugins[place]
            about = (plugin.distribution, plugin.version, plugin.name, plugin.summary, plugin.license)
            rows.append(ComponentRow(kind, name, entry, pure, config, *about, plugin.package, plugin.location))
        return rows

    @cached_property
    def hook_names(self) -> frozenset[str]:
        """The hooks that at least one of these plugins implements."""
        return frozenset(name for plugin in self.plugins for name in plugin.hook_names)

    @cached_property
    def problems(self) -> list[Problem]:
        """What was wrong with the others."""
        return list(map(Problem._make, _decoded(self._problems)))


def read_index(path: Sequence[str], home: Path, *, follow_finders: bool = False) -> Index:
    """The index of the plugins on ``path``: from its file where that still holds, else made anew and written.

    Args:
        path: the folders to look in, absolute.
        home: Twinkle's folder; where it can't be written, nothing is remembered.
        follow_finders: as for ``discover``.
    """
    file = home / "index" / f"{zlib.crc32(os.pathsep.join(path).encode()):08x}.json"
    header, sections = _read(file, path)
    if header is not None:
        index = _index(header, sections)
        if index.stamps.hold():
            return index
    now = time.time_ns()
    folders = [(folder, _folder_time(folder)) for folder in path]
    found = sorted(discover(path, _known(sections), follow_finders=follow_finders), key=_order)
    header, sections = _encode(folders, found)
    if _settled(folders, found, now):
        _write(file, header, sections)
    return _index(header, sections)


def _order(found: Found) -> tuple[str, str]:
    columns = found.plugin or found.problem or ()
    return str(columns[0]).lower(), found.manifest


def _folder_time(folder: str) -> int | None:
    stamp = stamp_of(folder)
    return stamp and stamp[0]


def _settled(folders: Sequence[tuple[str, int | None]], found: Sequence[Found], now: int) -> bool:
    """Whether a later change would show: a time that is just passing could come out the same once more (one to come, not)."""
    times = [time for _, time in folders if time] + [entry.stamp[0] for entry in found if entry.stamp]
    return all(abs(now - time) > (_TICK_NS if time % 1_000_000_000 else _COARSE_TICK_NS) for time in times)


def _encode(folders: list[tuple[str, int | None]], found: Sequence[Found]) -> tuple[dict[str, Any], list[Section]]:
    """The header, and the sections that follow it: plugins, components, problems, and what was found, for the next time."""
    good = [entry for entry in found if entry.plugin]
    watched = sorted({file for entry in found for file in entry.watched})
    sections = [
        [_column(values) for values in zip(*(entry.plugin for entry in good if entry.plugin), strict=True)],
        [[place, *component] for place, entry in enumerate(good) for component in entry.components],
        [entry.problem for entry in found if entry.problem],
        [[entry.manifest, entry.stamp, entry.watched] for entry in good],
    ]
    encoded: list[Section] = [json.dumps(section, separators=(",", ":")).encode() for section in sections]
    header = {
        "format": _FORMAT,
        "folders": folders,
        "files": [(file, stamp_of(file)) for file in watched],
        "lengths": list(map(len, encoded)),
        "check": zlib.crc32(b"".join(encoded)),
    }
    return header, encoded


def _read(file: Path, path: Sequence[str]) -> tuple[dict[str, Any] | None, list[Section]]:
    """Header and sections, or ``None`` where the file is missing, damaged, of another format or user, or for another path."""
    try:
        with file.open("rb") as stream:
            # The rows say which modules are imported: in a home that several people share, only one's own are believed.
            if hasattr(os, "geteuid") and os.fstat(stream.fileno()).st_uid != os.geteuid():
                return None, []
            content = stream.read()
        start = content.index(b"\n") + 1
        header = json.loads(content[:start])
        ours = header["format"] == _FORMAT and [folder for folder, _ in header["folders"]] == list(path)
        if ours and header["check"] == zlib.crc32(memoryview(content)[start:]):
            ends = accumulate(header["lengths"], initial=start)
            return header, [memoryview(content)[begin:end] for begin, end in pairwise(ends)]
    except (OSError, ValueError, TypeError, KeyError):
        pass
    return None, []


def _index(header: dict[str, Any], sections: Sequence[Section]) -> Index:
    folders = [(folder, time) for folder, time in header["folders"]]
    files = [(file, stamp and (stamp[0], stamp[1])) for file, stamp in header["files"]]
    return Index(Stamps(folders, files), *sections[:3])


def _known(sections: Sequence[Section]) -> dict[str, Found]:
    """What an outdated file still knows of manifests, by their paths."""
    if not sections:
        return {}
    columns, components, _, manifests = map(_decoded, sections)
    plugins = list(_rows(columns))
    of_plugin: list[list[Any]] = [[] for _ in plugins]
    for place, *component in components:
        of_plugin[place].append(component)
    return {
        manifest: Found(manifest, stamp and (stamp[0], stamp[1]), watched, plugin, rows, None)
        for (manifest, stamp, watched), plugin, rows in zip(manifests, plugins, of_plugin, strict=True)
    }


def _write(file: Path, header: dict[str, Any], sections: Sequence[Section]) -> None:
    import tempfile

    with suppress(OSError):  # a home that can't be written costs time, nothing else
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=".", suffix=".tmp")
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(json.dumps(header, separators=(",", ":")).encode() + b"\n" + b"".join(sections))
            Path(temporary).replace(file)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        _forget_oldest(file.parent)


def _forget_oldest(folder: Path) -> None:
    """Each import path has a file of its own, and a script's folder is part of it: keep the latest ones."""
    files = sorted(folder.glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
    for file in files[:-_KEPT_FILES]:
        file.unlink(missing_ok=True)
