"""Making, keeping and checking the pins of a lock.

What the commands of ``twinkle hub`` do: pin a reference to what it is now, see which pins have moved, fetch what is pinned, compare
what is stored with the lock. Writes no file but the caches; executes no code of a repository.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from twinkle_hub.digest import digest_of_folder, sha256_of
from twinkle_hub.errors import HubError, NotCachedError, RepositoryNotFoundError, RevisionNotFoundError
from twinkle_hub.hubs import locate
from twinkle_hub.patterns import matching
from twinkle_hub.repository import RepoRef, RepoType
from twinkle_registry.differences import FileDifference, differences
from twinkle_registry.errors import LockError, PluginLoadError, RegistryError, TrustError
from twinkle_registry.lock import LockedComponent, LockedRepository, LockFile

if TYPE_CHECKING:
    from twinkle_registry.inspection import Inspection
    from twinkle_registry.reference import HubReference
    from twinkle_registry.registry import Registry
    from twinkle_registry.store import ComponentStore, StoredRepository

Table = Literal["component", "model", "dataset"]
"""What an entry pins; the lock's tables."""

State = Literal["ok", "fetched", "missing", "changed", "moved", "gone", "failed"]
"""How an entry compares: as pinned; fetched just now; not on this machine; other bytes; another commit; no longer on the hub; or
nobody could tell, or fetch it."""

DRIFT = frozenset({"changed", "moved", "gone"})
"""The states in which what is there isn't what was locked."""


@dataclass(frozen=True)
class Checked:
    """How one entry compares with what is there.

    Attributes:
        table: what it pins.
        reference: the entry's.
        state: see ``State``.
        message: for a person.
        commit: what the reference stands for on the hub now, where that was asked.
    """

    table: Table
    reference: str
    state: State
    message: str
    commit: str | None = None


@dataclass(frozen=True)
class Move:
    """An entry and what its reference stands for now; the same where nothing moved."""

    table: Table
    before: LockedComponent | LockedRepository
    after: LockedComponent | LockedRepository

    @property
    def moved(self) -> bool:
        """Whether anything of it changed."""
        return self.before != self.after


def pinned(lock: LockFile, found: RepoRef, repo_type: RepoType, *, locked: bool) -> RepoRef:
    """The model or data set ``found`` at the commit that ``lock`` pins; as it is where there is no pin.

    A data set that is a single file has no revisions: it is returned as it is, too, if it is what was locked.

    Raises:
        LockError: there is no pin, and with ``locked`` there has to be one; or the single file was changed.
    """
    entry = lock.repository(str(found), repo_type)
    if entry is None:
        if locked:
            raise LockError(
                f"{found} isn't in {lock.file}, and only what is locked may be used (TWINKLE_LOCKED, --locked). "
                f"Add it: twinkle hub add --{repo_type} {found}"
            )
        return found
    if not _is_single_file(found, repo_type):
        return found.at(entry.commit)
    if (now := sha256_of(Path(found.repo_id))) != entry.commit:
        raise LockError(f"{found} was changed after it was locked: sha256:{entry.commit} is locked, and it is sha256:{now}.")
    return found


def hub_reference(registry: Registry, reference: str) -> HubReference:
    """The hub reference that ``reference`` (or the project's alias of that name) stands for, with the project's mirror applied.

    Raises:
        LockError: it stands for something installed, which no lock pins.
        RegistryError: as ``Registry.find``.
    """
    if "://" not in reference and reference not in registry.project.alias:
        raise LockError(
            f"{reference!r} names no repository on a hub, and a lock pins nothing else (installed plugins are pip's to pin). "
            f"Give a reference such as hf://owner/name; for a model or a data set, --model or --dataset."
        )
    found = registry.find("component", reference).hub
    if found is None:
        raise LockError(f"{reference!r} is an alias of an installed component, which no lock pins.")
    return found


def entries(lock: LockFile, references: Sequence[str] = ()) -> list[tuple[Table, LockedComponent | LockedRepository]]:
    """The entries of ``lock`` with their tables; with ``references``, only those.

    Raises:
        LockError: one of them isn't in the lock.
    """
    found: list[tuple[Table, LockedComponent | LockedRepository]] = [("component", entry) for entry in lock.components]
    found += [("model", entry) for entry in lock.models]
    found += [("dataset", entry) for entry in lock.datasets]
    if not references:
        return found
    known = {entry.reference for _, entry in found}
    wanted = set()
    for reference in references:
        wanted.add(canonical := str(RepoRef.parse(reference if "://" in reference else f"hf://{reference}")))
        if canonical not in known:
            raise LockError(f"{reference} isn't in {lock.file}. It holds: {', '.join(sorted(known)) or 'nothing'}.")
    return [(table, entry) for table, entry in found if entry.reference in wanted]


@dataclass(frozen=True)
class Pins:
    """Asks hubs and the caches on behalf of a lock.

    Attributes:
        registry: resolves and fetches.
        store: where the bytes of components are.
        offline: no hub is asked; what was seen last counts.
    """

    registry: Registry
    store: ComponentStore
    offline: bool = False

    def component(self, reference: str, mirrors: Sequence[str] = ()) -> tuple[LockedComponent, Inspection]:
        """What ``reference`` is now, to be locked, whatever an older lock says; fetches the files into the store.

        Args:
            reference: a component or its repository.
            mirrors: other repositories that hold the same files.

        Raises:
            LockError: it is no hub reference, or a mirror has other files.
            TrustError: the files aren't those of the digest in ``reference``, or not those that an older lock pins for that commit.
            HubError: it can't be fetched.
        """
        hub = hub_reference(self.registry, reference)
        asked = RepoRef.parse(hub.repository_reference)
        commit = self.commit(asked, "model")
        inspection = self.registry.inspect(str(asked.at(commit)))
        if hub.digest not in (None, inspection.digest):
            raise TrustError(
                f"{reference!r} isn't what its digest says: sha256:{hub.digest} was asked for, and sha256:{inspection.digest} "
                "arrived. Find out why the files were changed before you write the new digest."
            )
        places = []
        for mirror in mirrors:
            place = RepoRef.parse(mirror)
            place = place.at(self.commit(place, "model"))
            if (other := self.registry.inspect(str(place)).digest) != inspection.digest:
                raise LockError(f"{mirror} is no mirror of {asked}: its files are sha256:{other}, not sha256:{inspection.digest}.")
            places.append(str(place))
        kinds = tuple(sorted({component.kind for component in inspection.components}))
        entry = LockedComponent(str(asked), commit, inspection.digest, kinds, tuple(sorted(places)))
        return entry, replace(inspection, reference=reference, revision=asked.revision)

    def repository(
        self,
        reference: str,
        repo_type: RepoType,
        *,
        allow_patterns: Sequence[str] | None = None,
        ignore_patterns: Sequence[str] | None = None,
        with_digest: bool = False,
    ) -> LockedRepository:
        """What the model or data set ``reference`` is now, to be locked.

        Args:
            reference: as ``twinkle.hub.download_model`` takes it.
            repo_type: which of the two it is.
            allow_patterns: which files belong to it.
            ignore_patterns: which of these don't.
            with_digest: fetch the files, and pin their digest, too.

        Raises:
            LockError: it is a path, which isn't the same elsewhere.
            HubError: it can't be found or fetched.
        """
        found = locate(reference, mirror=self.registry.project.mirror)
        if isinstance(found, Path):
            raise LockError(
                f"{reference!r} is a path on this machine, and a lock pins references. As one: "
                f"{RepoRef('file', str(found.absolute()))}"
            )
        allow = None if allow_patterns is None else tuple(sorted(set(allow_patterns)))
        ignore = tuple(sorted(set(ignore_patterns or ()))) or None
        entry = LockedRepository(str(found), self.commit(found, repo_type), None, allow, ignore)
        if with_digest:
            entry = replace(entry, digest=repository_digest(self._download(entry, repo_type), entry))
        return entry

    def move(self, table: Table, entry: LockedComponent | LockedRepository) -> Move:
        """What ``entry``'s reference stands for now; fetches what has moved, where its digest is locked.

        Raises:
            HubError: the repository can't be asked or fetched.
        """
        if isinstance(entry, LockedComponent):
            component, _ = self.component(entry.reference)
            # A mirror is pinned to a commit: it only follows where the files are the same.
            same = component.digest == entry.digest
            return Move(table, entry, replace(component, mirrors=entry.mirrors if same else ()))
        repo_type = _repo_type(table)
        pin = replace(entry, commit=self.commit(RepoRef.parse(entry.reference), repo_type))
        if pin != entry and entry.digest is not None:
            pin = replace(pin, digest=repository_digest(self._download(pin, repo_type), pin))
        return Move(table, entry, pin)

    def sync(self, table: Table, entry: LockedComponent | LockedRepository) -> Checked:
        """Fetch what ``entry`` pins, if it isn't here, and check it. A failure is an answer, so that the others can go on."""
        before = self.stored(table, entry)
        if before.state == "ok":
            return before
        try:
            if isinstance(entry, LockedComponent):
                return self._sync_component(entry)
            digest = repository_digest(self._download(entry, _repo_type(table)), entry)
        except (HubError, RegistryError) as error:
            return Checked(table, entry.reference, "failed", str(error))
        if entry.digest not in (None, digest):
            return Checked(table, entry.reference, "changed", _changed(entry.digest, digest))
        return Checked(table, entry.reference, "fetched", f"fetched at {entry.commit}")

    def stored(self, table: Table, entry: LockedComponent | LockedRepository) -> Checked:
        """How the bytes on this machine compare with ``entry``. Asks no hub; damaged components are removed from the store."""
        missing = Checked(table, entry.reference, "missing", "not on this machine. Fetch it: twinkle hub sync")
        if isinstance(entry, LockedComponent):
            if entry.digest not in self.store:
                return missing
            try:
                self.store.read(entry.digest)
            except PluginLoadError as error:
                return Checked(table, entry.reference, "changed", str(error))
            return Checked(table, entry.reference, "ok", f"sha256:{entry.digest} is stored and whole")
        try:
            digest = repository_digest(self._download(entry, _repo_type(table), offline=True), entry)
        except (NotCachedError, RepositoryNotFoundError):
            return missing
        except HubError as error:  # a folder whose content isn't that of its commit any more, say
            return Checked(table, entry.reference, "changed", str(error))
        if entry.digest not in (None, digest):
            return Checked(table, entry.reference, "changed", _changed(entry.digest, digest))
        known = "" if entry.digest else "; the digest of its files isn't locked (twinkle hub add --digest)"
        return Checked(table, entry.reference, "ok", f"stored at {entry.commit}{known}")

    def remote(self, table: Table, entry: LockedComponent | LockedRepository) -> Checked:
        """Whether ``entry``'s reference still stands for its commit on the hub. A hub that can't be asked is an answer, too."""
        try:
            commit = self.commit(RepoRef.parse(entry.reference), _repo_type(table))
        except (RepositoryNotFoundError, RevisionNotFoundError) as error:
            return Checked(table, entry.reference, "gone", str(error))
        except HubError as error:
            return Checked(table, entry.reference, "failed", str(error))
        if commit != entry.commit:
            return Checked(table, entry.reference, "moved", f"locked at {entry.commit}, and it is {commit} now", commit)
        return Checked(table, entry.reference, "ok", f"still at {commit}", commit)

    def _sync_component(self, entry: LockedComponent) -> Checked:
        failures = []
        for source in entry.sources:
            try:
                digest = self.registry.inspect(source).digest
            except HubError as error:
                failures.append(str(error))
                continue
            if digest != entry.digest:
                return Checked("component", entry.reference, "changed", f"{source}: {_changed(entry.digest, digest)}")
            return Checked("component", entry.reference, "fetched", f"fetched from {source}")
        return Checked("component", entry.reference, "failed", " ".join(failures))

    def commit(self, asked: RepoRef, repo_type: RepoType) -> str:
        """The commit that ``asked`` stands for now; for a single file the SHA-256 of its content.

        Raises:
            HubError: the hub doesn't say.
        """
        if _is_single_file(asked, repo_type):
            return sha256_of(Path(asked.repo_id))
        hub = self.registry.hubs.get(asked.scheme)
        return hub.resolve(asked.repo_id, asked.revision, repo_type, offline=self.offline)

    def _download(self, entry: LockedRepository, repo_type: RepoType, *, offline: bool | None = None) -> Path:
        asked = RepoRef.parse(entry.reference)
        if _is_single_file(asked, repo_type):
            if (now := sha256_of(Path(asked.repo_id))) != entry.commit:
                raise HubError(_changed(entry.commit, now))
            return Path(asked.repo_id)
        return self.registry.hubs.get(asked.scheme).download(
            asked.repo_id,
            revision=entry.commit,
            repo_type=repo_type,
            allow_patterns=entry.allow_patterns,
            ignore_patterns=entry.ignore_patterns,
            offline=self.offline if offline is None else offline,
        )


def repository_digest(folder: Path, entry: LockedRepository) -> str:
    """The digest of the files in ``folder`` that belong to ``entry``, without hidden ones (those are the platforms')."""
    if folder.is_file():
        return sha256_of(folder)
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    shown = [path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts)]
    return digest_of_folder(folder, matching(shown, entry.allow_patterns, entry.ignore_patterns))


def _is_single_file(found: RepoRef, repo_type: RepoType) -> bool:
    return repo_type == "dataset" and found.scheme == "file" and found.revision is None and Path(found.repo_id).is_file()


def _repo_type(table: Table) -> RepoType:
    return "dataset" if table == "dataset" else "model"


def _changed(locked: str | None, found: str) -> str:
    return f"its files were changed after it was locked: sha256:{locked} is locked, and these are sha256:{found}."


@dataclass(frozen=True)
class Side:
    """One side of a comparison: where the files are from, and a component's digest."""

    source: str
    digest: str | None = None


@dataclass(frozen=True)
class Comparison:
    """Two versions of a repository, and the files that differ."""

    before: Side
    after: Side
    files: list[FileDifference]


def compare(pins: Pins, reference: str, before: str, after: str | None) -> Comparison:
    """What changed in the files of the component ``reference`` from ``before`` to ``after``.

    Args:
        pins: its registry fetches, into its store.
        reference: the component.
        before: a revision, or ``lock`` for the one that the lock pins.
        after: likewise; ``None`` is what ``reference`` itself stands for.

    Raises:
        LockError: the lock doesn't hold ``reference``.
        HubError: a revision can't be fetched.
    """
    hub = hub_reference(pins.registry, reference)
    asked = RepoRef.parse(hub.repository_reference)
    (left, one), (right, other) = (_stored_side(pins, asked, revision) for revision in (before, after))
    return Comparison(left, right, differences(one.folder, one.sizes, other.folder, other.sizes))


def compare_repository(pins: Pins, reference: str, repo_type: RepoType, before: str, after: str | None) -> Comparison:
    """As ``compare``, for a model or a data set. Only text (``TEXT``) is fetched; other files are compared by name.

    Raises:
        LockError: the lock doesn't hold ``reference``, or it is a path.
        HubError: a revision can't be fetched.
    """
    asked = locate(reference, mirror=pins.registry.project.mirror)
    if isinstance(asked, Path):
        raise LockError(f"{reference!r} is a path on this machine, and has no revisions to compare.")
    sides, folders, paths = [], [], []
    for revision in (before, after):
        commit = _locked_commit(pins, asked, repo_type) if revision == "lock" else None
        commit = commit or pins.commit(asked if revision is None else asked.at(revision), repo_type)
        hub = pins.registry.hubs.get(asked.scheme)
        names = hub.list_files(asked.repo_id, commit, repo_type)
        folder = hub.download(asked.repo_id, revision=commit, repo_type=repo_type, allow_patterns=TEXT, offline=pins.offline)
        sides.append(Side(str(asked.at(commit))))
        folders.append(folder)
        paths.append(set(names))
    text = set(matching(paths[0] | paths[1], TEXT, None))
    found = differences(folders[0], paths[0] & text, folders[1], paths[1] & text)
    found += [FileDifference(path, "removed", "") for path in paths[0] - paths[1] - text]
    found += [FileDifference(path, "added", "") for path in paths[1] - paths[0] - text]
    return Comparison(sides[0], sides[1], sorted(found, key=lambda row: row.path))


TEXT = ("*.json", "*.txt", "*.md", "*.py", "*.jinja", "*.yaml", "*.yml", "*.toml")
"""What is read of models and data sets to compare them: configuration, tokenizers, cards and code, but no weights and no rows."""


def _locked_commit(pins: Pins, asked: RepoRef, repo_type: RepoType) -> str:
    lock = pins.registry.lock
    entry = lock.repository(str(asked), repo_type)
    if entry is None:
        raise LockError(
            f"{asked} isn't in {lock.file}. Add it (twinkle hub add --{repo_type} {asked}), or name two revisions: A..B"
        )
    return entry.commit


def _stored_side(pins: Pins, asked: RepoRef, revision: str | None) -> tuple[Side, StoredRepository]:
    side = _side(pins, asked, revision)
    return side, pins.store.read(str(side.digest))


def _side(pins: Pins, asked: RepoRef, revision: str | None) -> Side:
    if revision != "lock":
        at = asked if revision is None else asked.at(revision)
        inspection = pins.registry.inspect(str(at))
        return Side(str(at.at(inspection.commit)) if inspection.commit else str(at), inspection.digest)
    lock = pins.registry.lock
    entry = lock.component(str(asked))
    if entry is None:
        raise LockError(f"{asked} isn't in {lock.file}. Add it (twinkle hub add {asked}), or name two revisions: A..B")
    if entry.digest not in pins.store:
        checked = pins.sync("component", entry)
        if checked.state != "fetched":
            raise LockError(f"What {lock.file} pins for {asked} can't be had: {checked.message}")
    return Side(entry.sources[0], entry.digest)
