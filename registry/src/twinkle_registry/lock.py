"""``twinkle.lock``: which commit and which bytes each hub reference of a project stands for.

TOML, sorted, without times: the same entries are the same bytes, so that a change to the file is a change in what runs. It stands
beside the project's ``twinkle.toml`` and is meant to be committed and reviewed. Asks no hub, loads no code, holds no token.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from twinkle_hub.errors import HubError
from twinkle_hub.repository import RepoRef, RepoType, check_revision
from twinkle_registry._toml import line_of, read_toml, unknown_key
from twinkle_registry.errors import LockError, ManifestError
from twinkle_registry.project import Project

LOCK = "twinkle.lock"
"""The file's name."""

_HEAD = """\
# What each reference of this project stands for. Made by `twinkle hub add` and `twinkle hub lock --update`; commit it.
schema = 1
"""
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_COMPONENT_KEYS = ("reference", "commit", "digest", "kinds", "mirrors")
_REPOSITORY_KEYS = ("reference", "commit", "digest", "allow", "ignore")
_TABLES = ("component", "model", "dataset")


@dataclass(frozen=True, order=True)
class LockedComponent:
    """A repository of components, pinned.

    Attributes:
        reference: ``scheme://owner/name[@revision]``, as it is asked for: without ``/Component``, absolute for ``file``.
        commit: what its revision was when it was locked.
        digest: the SHA-256 (64 hex digits) that its component files must have.
        kinds: the kinds of its components, sorted; empty where the repository has no manifest.
        mirrors: other places with the same bytes, each at its commit: ``scheme://owner/name@commit``.
    """

    reference: str
    commit: str
    digest: str
    kinds: tuple[str, ...] = ()
    mirrors: tuple[str, ...] = ()

    @property
    def sources(self) -> tuple[str, ...]:
        """Where the bytes can be fetched from, pinned to commits, the best first. What arrives has to have ``digest``."""
        return (str(RepoRef.parse(self.reference).at(self.commit)), *self.mirrors)


@dataclass(frozen=True, order=True)
class LockedRepository:
    """A model or a data set, pinned.

    Attributes:
        reference: ``scheme://owner/name[@revision]``, as it is asked for; absolute for ``file``.
        commit: what its revision was when it was locked.
        digest: the SHA-256 (64 hex digits) over the files that match the patterns, hidden ones left out, or ``None`` where they
            were never hashed.
        allow_patterns: which files belong to it; ``None`` means all. Downloads may ask for fewer.
        ignore_patterns: which of these don't.
    """

    reference: str
    commit: str
    digest: str | None = None
    allow_patterns: tuple[str, ...] | None = None
    ignore_patterns: tuple[str, ...] | None = None

    @property
    def source(self) -> str:
        """Where it is fetched from: the repository at its commit."""
        return str(RepoRef.parse(self.reference).at(self.commit))


@dataclass(frozen=True)
class LockFile:
    """What a ``twinkle.lock`` says; a value, which ``with_…`` and ``without`` copy. Entries are unique by reference, and sorted.

    Attributes:
        file: where it stands, or would.
        components: repositories of components.
        models: base models and adapters.
        datasets: data sets.
        foreign: the file belongs to another user. Its pins hold, but they are nobody's permission to execute anything: a lock is
            found by the working folder, and that may be one where others write (``/tmp``).
    """

    file: Path
    components: tuple[LockedComponent, ...] = ()
    models: tuple[LockedRepository, ...] = ()
    datasets: tuple[LockedRepository, ...] = ()
    foreign: bool = field(default=False, compare=False)

    @classmethod
    def read(cls, file: Path) -> LockFile:
        """What ``file`` says; one that isn't there says nothing.

        Raises:
            LockError: it isn't valid; names file, line and key.
        """
        file = file.absolute()
        try:
            with file.open("rb") as stream:
                content, foreign = stream.read(), _is_foreign(os.fstat(stream.fileno()).st_uid)
        except FileNotFoundError:
            return cls(file)
        except OSError as error:
            raise LockError(f"{file}: can't be read: {error.strerror or error}.") from None
        return replace(_parsed(file, content), foreign=foreign)

    def component(self, reference: str) -> LockedComponent | None:
        """The pin of a component's repository.

        ``reference`` is ``scheme://owner/name[@revision]`` as it is asked for. One that asks for the very commit of an entry finds
        it, too; so does a mirror of an entry, and then the answer is the mirror's: its reference and its commit, the same digest.

        Raises:
            HubError: ``reference`` can't be read.
        """
        asked = RepoRef.parse(reference)
        return self._components.get(str(asked))

    def by_digest(self, digest: str) -> LockedComponent | None:
        """The first entry with that digest (64 hex digits): these files may be executed. In a foreign lock, none."""
        return None if self.foreign else next((entry for entry in self.components if entry.digest == digest), None)

    def repository(self, reference: str, repo_type: RepoType) -> LockedRepository | None:
        """The pin of a model or a data set, as it is asked for or by its commit; ``owner/name`` alone is Hugging Face's.

        Raises:
            HubError: ``reference`` can't be read.
        """
        asked = _canonical(reference)
        entries = self.models if repo_type == "model" else self.datasets
        named = next((entry for entry in entries if entry.reference == asked), None)
        return named or next((entry for entry in entries if entry.source == asked), None)

    def with_component(self, entry: LockedComponent) -> LockFile:
        """This lock with ``entry``, in place of the one of the same reference."""
        reference = _canonical(entry.reference)
        entry = replace(entry, reference=reference, kinds=_sorted(entry.kinds), mirrors=_sorted(map(_canonical, entry.mirrors)))
        return replace(self, components=_put(self.components, entry))

    def with_repository(self, entry: LockedRepository, repo_type: RepoType) -> LockFile:
        """This lock with ``entry`` among its models or its data sets, in place of the one of the same reference."""
        allow, ignore = entry.allow_patterns, entry.ignore_patterns
        entry = replace(
            entry,
            reference=_canonical(entry.reference),
            allow_patterns=None if allow is None else _sorted(allow),
            ignore_patterns=_sorted(ignore) if ignore else None,
        )
        if repo_type == "model":
            return replace(self, models=_put(self.models, entry))
        return replace(self, datasets=_put(self.datasets, entry))

    def without(self, reference: str) -> LockFile:
        """This lock without the entries of ``reference``, whatever they are."""
        gone = _canonical(reference)
        return replace(
            self,
            components=tuple(entry for entry in self.components if entry.reference != gone),
            models=tuple(entry for entry in self.models if entry.reference != gone),
            datasets=tuple(entry for entry in self.datasets if entry.reference != gone),
        )

    def as_toml(self) -> str:
        """The file's text; folders below the lock's own are written as relative ones, so that the project can be moved."""
        # Sorted as written, too: where the project lies doesn't show in the order.
        components = sorted(map(self._component_row, self.components), key=lambda row: row["reference"])
        models = sorted(map(self._repository_row, self.models), key=lambda row: row["reference"])
        datasets = sorted(map(self._repository_row, self.datasets), key=lambda row: row["reference"])
        tables = (("component", components), ("model", models), ("dataset", datasets))
        parts = [_HEAD, *(_table(name, row) for name, rows in tables for row in rows)]
        return "\n".join(parts)

    def save(self) -> None:
        """Write the file, whole or not at all. To add to it while others do, use ``update_lock``.

        Raises:
            LockError: it can't be written.
        """
        import tempfile

        try:
            descriptor, name = tempfile.mkstemp(prefix=f".{self.file.name}.", dir=self.file.parent)
            temporary = Path(name)
            try:
                with os.fdopen(descriptor, "wb") as stream:
                    stream.write(self.as_toml().encode())
                    os.fsync(stream.fileno())
                # mkstemp's files are for one user only; this one is part of a project
                temporary.chmod(self.file.stat().st_mode & 0o777 if self.file.exists() else 0o644)
                temporary.replace(self.file)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            raise LockError(f"{self.file}: can't be written: {error.strerror or error}. It is as it was.") from error

    @cached_property
    def _components(self) -> dict[str, LockedComponent]:
        """Every reference that stands for an entry; what is asked for comes before commits and mirrors."""
        found: dict[str, LockedComponent] = {}
        for entry in self.components:
            asked = RepoRef.parse(entry.reference)
            found.setdefault(str(asked.at(entry.commit)), entry)
            for mirror in map(RepoRef.parse, entry.mirrors):
                other = replace(entry, reference=str(mirror.at(asked.revision)), commit=mirror.revision or entry.commit)
                found.setdefault(str(mirror), other)
                found.setdefault(other.reference, other)
        found.update((entry.reference, entry) for entry in self.components)
        return found

    def _component_row(self, entry: LockedComponent) -> dict[str, Any]:
        row = {
            "reference": self._written(entry.reference),
            "commit": entry.commit,
            "digest": f"sha256:{entry.digest}",
            "kinds": entry.kinds,
        }
        return {**row, "mirrors": sorted(map(self._written, entry.mirrors))} if entry.mirrors else row

    def _repository_row(self, entry: LockedRepository) -> dict[str, Any]:
        row = {
            "reference": self._written(entry.reference),
            "commit": entry.commit,
            "digest": f"sha256:{entry.digest}" if entry.digest is not None else None,
            "allow": entry.allow_patterns,
            "ignore": entry.ignore_patterns,
        }
        return {key: value for key, value in row.items() if value is not None}

    def _written(self, reference: str) -> str:
        found = RepoRef.parse(reference)
        folder = Path(found.repo_id)
        if found.scheme != "file" or not folder.is_relative_to(self.file.parent):
            return reference
        relative = folder.relative_to(self.file.parent).as_posix()
        absolute = str(RepoRef("file", f"/{relative}", found.revision))
        return f"file://.{absolute.removeprefix('file://')}" if relative != "." else reference


def find_lock(project: Project, cwd: Path | None = None) -> LockFile:
    """The lock beside the project's ``twinkle.toml``; without a project, that in ``cwd`` (default: the working folder).

    Where there is none, an empty one, which ``save`` would write there.

    Raises:
        LockError: it isn't valid; names file, line and key.
    """
    return LockFile.read((project.folder or cwd or Path.cwd()) / LOCK)


def update_lock(file: Path, change: Callable[[LockFile], LockFile], *, home: Path) -> LockFile:
    """Read ``file``, apply ``change``, and write the result where it differs; of several processes, one after the other.

    Args:
        file: the lock; it need not exist.
        change: from the lock as it is now to what it shall be. It is called while others wait: it should ask no hub.
        home: Twinkle's folder, in which the processes find each other.

    Returns:
        What the file says then.

    Raises:
        LockError: it isn't valid, or can't be written; it is as it was.
    """
    from hashlib import sha256

    from filelock import FileLock

    locks = home / "locks"
    try:
        locks.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LockError(f"{locks} can't be written: {error}. Set TWINKLE_HOME to a folder that can.") from error
    with FileLock(locks / f"{sha256(str(file.resolve()).encode()).hexdigest()[:32]}.lock"):
        before = LockFile.read(file)
        after = change(before)
        if after != before or not file.exists():
            after.save()
    return after


def _parsed(file: Path, content: bytes) -> LockFile:
    try:
        text, data = read_toml(content, str(file))
    except ManifestError as error:
        raise LockError(f"{error} {_MEND}") from None
    reader = _Reader(file, text)
    reader.known((), data, ("schema", *_TABLES))
    if data.get("schema") != 1 or data["schema"] is True:
        raise reader.wrong(("schema",), f"has to be 1, and this is {data.get('schema')!r}")
    components = tuple(reader.component(key, row) for key, row in reader.rows("component", data, _COMPONENT_KEYS))
    models = tuple(reader.repository(key, row) for key, row in reader.rows("model", data, _REPOSITORY_KEYS))
    datasets = tuple(reader.repository(key, row) for key, row in reader.rows("dataset", data, _REPOSITORY_KEYS))
    for table, entries in (("component", components), ("model", models), ("dataset", datasets)):
        reader.unique(table, entries)
    return LockFile(file, _by_reference(components), _by_reference(models), _by_reference(datasets))


def _is_foreign(owner: int) -> bool:
    """Whether the user with the number ``owner`` is neither this process's, nor who called ``sudo``, nor root."""
    if not hasattr(os, "geteuid"):
        return False
    own = {"0", str(os.geteuid())}
    if os.geteuid() == 0:
        own.add(os.environ.get("SUDO_UID", "0"))
    return str(owner) not in own


_MEND = "If it was merged by hand, take one side and run: twinkle hub add REF"


@dataclass(frozen=True)
class _Reader:
    """Checks what a lock holds; its errors name file, line and key."""

    file: Path
    text: str

    def wrong(self, key: tuple[str | int, ...], what: str) -> LockError:
        name = ".".join(str(part) for part in key)
        return LockError(f"{self.file}:{line_of(self.text, key)}: {name}: {what}. {_MEND}")

    def known(self, key: tuple[str | int, ...], row: Mapping[str, Any], keys: tuple[str, ...]) -> None:
        for name in row:
            if name not in keys:
                raise self.wrong((*key, name), unknown_key(name, keys))

    def rows(self, table: str, data: Mapping[str, Any], keys: tuple[str, ...]) -> Iterable[tuple[tuple[str | int, ...], Any]]:
        found = data.get(table, [])
        if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
            raise self.wrong((table,), f"has to be an array of tables: [[{table}]]")
        for number, row in enumerate(found):
            self.known((table, number), row, keys)
            yield (table, number), row

    def component(self, key: tuple[str | int, ...], row: Mapping[str, Any]) -> LockedComponent:
        reference, commit, digest = self.asked(key, row), self.commit(key, row), self.digest(key, row)
        if digest is None:
            raise self.wrong((*key, "digest"), "is missing: a component without its digest isn't pinned")
        mirrors = tuple(self.reference((*key, "mirrors"), text) for text in self.strings(key, row, "mirrors"))
        if loose := [mirror for mirror in mirrors if RepoRef.parse(mirror).revision is None]:
            raise self.wrong((*key, "mirrors"), f"{loose[0]!r} isn't pinned to a commit: {loose[0]}@COMMIT")
        kinds = self.strings(key, row, "kinds")
        return LockedComponent(reference, commit, digest, _sorted(kinds), _sorted(mirrors))

    def repository(self, key: tuple[str | int, ...], row: Mapping[str, Any]) -> LockedRepository:
        allow = _sorted(self.strings(key, row, "allow")) if "allow" in row else None
        ignore = _sorted(self.strings(key, row, "ignore")) or None
        return LockedRepository(self.asked(key, row), self.commit(key, row), self.digest(key, row), allow, ignore)

    def asked(self, key: tuple[str | int, ...], row: Mapping[str, Any]) -> str:
        return self.reference((*key, "reference"), row.get("reference"))

    def reference(self, key: tuple[str | int, ...], text: object) -> str:
        if not isinstance(text, str):
            raise self.wrong(key, f"has to be a reference in quotes, and this is {text!r}")
        try:
            return _canonical(text, self.file.parent)
        except HubError as error:
            raise self.wrong(key, str(error).rstrip(".")) from None

    def commit(self, key: tuple[str | int, ...], row: Mapping[str, Any]) -> str:
        commit = row.get("commit")
        try:
            if not isinstance(commit, str):
                raise HubError(f"has to be a commit in quotes, and this is {commit!r}")
            check_revision(commit, commit)
        except HubError as error:
            raise self.wrong((*key, "commit"), str(error).rstrip(".")) from None
        return commit

    def digest(self, key: tuple[str | int, ...], row: Mapping[str, Any]) -> str | None:
        digest = row.get("digest")
        if digest is None:
            return None
        match = _DIGEST.fullmatch(digest) if isinstance(digest, str) else None
        if match is None:
            raise self.wrong((*key, "digest"), f"has to be 'sha256:' and 64 hex digits, and this is {digest!r}")
        return match.group(1)

    def strings(self, key: tuple[str | int, ...], row: Mapping[str, Any], name: str) -> tuple[str, ...]:
        found = row.get(name, [])
        if not isinstance(found, list) or not all(isinstance(value, str) and value for value in found):
            raise self.wrong((*key, name), f"has to be a list of texts, and this is {found!r}")
        return tuple(found)

    def unique(self, table: str, entries: tuple[LockedComponent | LockedRepository, ...]) -> None:
        seen: set[str] = set()
        for number, entry in enumerate(entries):
            if entry.reference in seen:
                raise self.wrong((table, number), f"{entry.reference} is there twice")
            seen.add(entry.reference)


def _canonical(reference: str, base: Path | None = None) -> str:
    return str(RepoRef.parse(reference if "://" in reference else f"hf://{reference}", base=base))


def _sorted(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(values)))


_Entry = TypeVar("_Entry", LockedComponent, LockedRepository)


def _by_reference(entries: Iterable[_Entry]) -> tuple[_Entry, ...]:
    return tuple(sorted(entries, key=lambda entry: entry.reference))


def _put(entries: Iterable[_Entry], entry: _Entry) -> tuple[_Entry, ...]:
    return _by_reference(list({**{other.reference: other for other in entries}, entry.reference: entry}.values()))


def _table(name: str, rows: Mapping[str, str | Iterable[str]]) -> str:
    lines = [f"[[{name}]]"]
    for key, value in rows.items():
        shown = _quoted(value) if isinstance(value, str) else f"[{', '.join(map(_quoted, value))}]"
        lines.append(f"{key} = {shown}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A basic string of TOML, which is JSON's but for DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
