"""Components from hubs: resolve, authorize, fetch, verify, authorize what arrived, import.

``HubLoading`` is the one way in, for references, for classes that are unpickled by digest, and for code that something else will
execute. Leans on the store for files, on ``trust.authorize`` for permission; knows nothing of installed plugins.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from twinkle_hub.errors import HubError, RepositoryNotFoundError, RevisionNotFoundError
from twinkle_hub.repository import RepoRef
from twinkle_hub.settings import Settings
from twinkle_registry.errors import LockError, TrustError
from twinkle_registry.hub_component import find_in_repository
from twinkle_registry.inspection import Inspection, claims, inspect_files
from twinkle_registry.limits import Limits, check_files
from twinkle_registry.load_rules import LoadRules
from twinkle_registry.reference import HubReference
from twinkle_registry.store import ComponentStore, StoredRepository
from twinkle_registry.trust import VARIABLE, Answer, Grant, LoadRequest, authorize, check_fetch

if TYPE_CHECKING:
    from twinkle_hub.hubs import Hubs
    from twinkle_registry.lock import LockedComponent, LockFile
    from twinkle_registry.rows import PluginRow

ASK_AGAIN_S = 0.05
"""How long a permission holds for a component that is loaded again and again: asking takes some 100 µs, this a thousandth of it. A
changed environment counts at once, and plugins' ``twinkle_check_load`` is asked every time."""

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


class HubLoaded(NamedTuple):
    """A component that was loaded.

    Attributes:
        found: the class or function.
        request: what was allowed.
        label: the plugin and its version, or the repository.
        config: what the manifest declares of its configuration.
        first: this call loaded it; else it was there already.
    """

    found: Any
    request: LoadRequest
    label: str
    config: Mapping[str, Mapping[str, Any]]
    first: bool


class _Fetched(NamedTuple):
    digest: str
    commit: str | None
    repository: str


class HubLoading:
    """Loads components from hubs for one registry.

    Args:
        home: Twinkle's folder.
        settings: whether the network, and what the lock doesn't hold, may be used.
        hubs: the hubs.
        lock: the project's lock.
        denial: asks the plugins' ``twinkle_check_load``.
        checks_loads: whether there is any plugin that implements it.
        asker: asks a person, or ``None``.
        warn: is told when the environment alone allows something.
        base_class: gives the base class of a kind, for repositories without a manifest.
        check_requirements: checks that a plugin can run here.
    """

    def __init__(
        self,
        *,
        home: Path,
        settings: Settings,
        hubs: Callable[[], Hubs],
        lock: Callable[[], LockFile],
        denial: Callable[[LoadRequest], str | None],
        checks_loads: Callable[[], bool],
        asker: Callable[[Inspection], Answer] | None,
        warn: Callable[[str], None],
        base_class: Callable[[str], type] | None,
        check_requirements: Callable[[PluginRow], None],
    ) -> None:
        self._store = ComponentStore(home)
        self._settings = settings
        self._hubs = hubs
        self._lock = lock
        self._checks_loads = checks_loads
        self._warn = warn
        self._base_class = base_class
        self._check_requirements = check_requirements
        self._loaded: dict[tuple[str, HubReference], HubLoaded] = {}
        self._allowed_until: dict[tuple[str, HubReference], tuple[float, str | None]] = {}
        self._denial = denial
        self._rules = LoadRules(home=home, checks_loads=checks_loads, lock=lock, examine=self._examined, asker=asker)

    def authorize(self, request: LoadRequest) -> Grant:
        """Permission to load what ``request`` says.

        Raises:
            TrustError: it isn't allowed.
        """
        return authorize(request, rules=self._rules, denial=self._denial, warn=self._warn)

    def load(self, kind: str, reference: str, hub: HubReference, asked: HubReference) -> HubLoaded:
        """The component of ``kind`` that ``hub`` means; ``asked`` is the same before the project's mirror.

        In one process a reference stands for one thing; whether it may be used can change.
        """
        key = kind, hub
        known = self._loaded.get(key)
        if known is not None:
            if not self._still_allowed(key):
                self.authorize(known.request)
                self._allowed_until[key] = time.monotonic() + ASK_AGAIN_S, os.environ.get(VARIABLE)
            return known
        request = LoadRequest("hub", reference, kind, repository=_repository(hub), revision=hub.revision, digest=hub.digest)
        fetched = self._fetched(request, hub, asked)
        loaded = self._imported(request, hub, fetched)
        self._loaded[key] = loaded._replace(first=False)
        return loaded

    def loaded(self, digest: str) -> LoadRequest | None:
        """The request by which the files with ``digest`` were loaded in this process, or None."""
        return next((row.request for row in self._loaded.values() if row.request.digest == digest), None)

    def inspect(self, reference: str, hub: HubReference) -> Inspection:
        """What is in the repository that ``hub`` means now; it is fetched, and nothing of it is executed."""
        fetched = self._download(RepoRef.parse(hub.repository_reference))
        _check_pin(reference, hub.digest, fetched.digest, "arrived")
        request = LoadRequest("hub", reference, "", repository=_repository(hub), revision=hub.revision)
        return inspect_files(replace(request, commit=fetched.commit, digest=fetched.digest), self._store.read(fetched.digest))

    def authorize_folder(self, kind: str, repository: RepoRef, folder: Path) -> Grant:
        """Permission for something else to execute the Python files in ``folder``, which are among the files of ``repository``."""
        with tempfile.TemporaryDirectory() as draft:
            for file in sorted(folder.rglob("*.py")):
                copy = Path(draft, file.relative_to(folder))
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)
            digest = self._store.add(Path(draft))
        name = str(repository.at(None))
        request = LoadRequest("hub", str(repository), kind, repository=name, revision=repository.revision, digest=digest)
        return self.authorize(replace(request, among_others=True))

    def stored(self, digest: str) -> tuple[Grant, StoredRepository]:
        """The files with ``digest`` and the permission to load them; missing ones are fetched from where the lock says."""
        pins = [entry for entry in self._lock().components if entry.digest == digest]
        if digest not in self._store:
            if not pins:
                raise TrustError(
                    f"A class from the files sha256:{digest} was to be unpickled, and nobody here knows them: neither the store "
                    "nor the project's twinkle.lock. Nothing was executed. Pin them where it was pickled (twinkle hub add REF, "
                    "with the component's reference), and give this process that twinkle.lock."
                )
            self._fetch_any(digest, pins)
        repository = self._store.read(digest)
        return self._first_grant(digest, repository, pins), repository

    def _fetch_any(self, digest: str, pins: list[LockedComponent]) -> None:
        """Fetch the files with ``digest`` from the first of ``pins`` that gives them."""
        problem: Exception | None = None
        for pin in pins:
            request = LoadRequest("hub", pin.reference, next(iter(pin.kinds), "stored"), repository=_repository_of(pin.reference))
            try:
                return self._fetch_pin(replace(request, digest=digest, commit=pin.commit), pin)
            except (HubError, TrustError) as error:
                problem = problem or error
        assert problem is not None
        raise problem

    def _first_grant(self, digest: str, repository: StoredRepository, pins: list[LockedComponent]) -> Grant:
        """The first grant that any place from which the files are known to be gives, for any kind that is in them."""
        problem = None
        for request in self._candidates(digest, repository, pins):
            try:
                return self.authorize(request)
            except TrustError as error:
                problem = problem or error
        assert problem is not None
        raise problem

    def _candidates(self, digest: str, repository: StoredRepository, pins: list[LockedComponent]) -> Iterator[LoadRequest]:
        """What the files with ``digest`` could have been loaded as: every place that they came from, with every kind in them."""
        places = {(_repository_of(pin.reference), pin.commit): pin.reference for pin in pins}
        for source in self._store.sources(digest):
            places.setdefault((source.repository, source.commit or ""), _at(source.repository, source.commit))
        kinds = claims(repository) or {"stored": False}
        for (name, commit), reference in (places or {(f"sha256:{digest}", ""): f"sha256:{digest}"}).items():
            for kind, pure in kinds.items():
                request = LoadRequest("hub", reference, kind, repository=name, digest=digest, pure=pure)
                yield replace(request, revision=commit or None, commit=commit or None)

    def _fetched(self, request: LoadRequest, hub: HubReference, asked: HubReference) -> _Fetched:
        """The repository's files, which are in the store then. Nothing is fetched that couldn't be allowed."""
        pin = self._lock().component(asked.repository_reference) or self._lock().component(hub.repository_reference)
        if pin is not None:
            _check_pin(request.reference, hub.digest, pin.digest, f"is what {self._lock().file} holds")
            request = replace(request, digest=pin.digest, commit=pin.commit)
            self._check_fetch(request)
            if pin.digest not in self._store:
                mirror = RepoRef.parse(hub.repository_reference) if _repository(hub) != _repository(asked) else None
                self._fetch_pin(request, pin, mirror)
            elif hub.scheme == "file" and hub == asked and hub.digest is None:
                self._check_folder(request, hub, pin)
            return _Fetched(pin.digest, pin.commit, _repository(hub))
        if self._settings.locked:
            raise LockError(
                f"{request.reference} isn't in {self._lock().file}, and only what is locked may be used (TWINKLE_LOCKED, "
                f"--locked). Add it: twinkle hub add {request.reference}"
            )
        if hub.digest is not None and hub.digest in self._store and (known := self._known(request, hub.digest)):
            return known
        self._check_fetch(request)
        fetched = self._download(RepoRef.parse(hub.repository_reference))
        _check_pin(request.reference, hub.digest, fetched.digest, "arrived")
        return fetched

    def _known(self, request: LoadRequest, digest: str) -> _Fetched | None:
        """Files that are in the store; ``None`` where they are allowed only as the repository's, and nobody knows that they are."""
        for source in self._store.sources(digest):
            if source.repository == request.repository:
                return _Fetched(digest, source.commit, source.repository)
        unproven = replace(request, repository=f"sha256:{digest}")
        self._check_fetch(request)  # a denial of the repository holds for what only claims to be from it, too
        try:
            self._check_fetch(unproven)
        except TrustError:
            return None
        return _Fetched(digest, None, f"sha256:{digest}")

    def _fetch_pin(self, request: LoadRequest, pin: LockedComponent, mirror: RepoRef | None = None) -> None:
        """Fetch what the lock pins, from its reference or else from one of its mirrors."""
        problems: list[HubError] = []
        for source in [*([mirror] if mirror else []), *map(RepoRef.parse, pin.sources)]:
            self._check_fetch(replace(request, repository=str(source.at(None))))
            try:
                fetched = self._download(source)
            except HubError as error:
                problems.append(error)
                continue
            if fetched.digest != pin.digest:
                raise TrustError(
                    f"{request.reference!r} was changed after it was locked: {self._lock().file} holds sha256:{pin.digest}, and "
                    f"{source} gave sha256:{fetched.digest}. Find out why before you lock it anew (twinkle hub diff; twinkle hub "
                    f"add {request.reference})."
                )
            return
        causes = "; ".join(str(problem) for problem in problems)
        if any(isinstance(problem, RevisionNotFoundError | RepositoryNotFoundError) for problem in problems):
            raise TrustError(
                f"{request.reference!r} was changed after it was locked: no place gives what {self._lock().file} holds "
                f"(commit {pin.commit}, sha256:{pin.digest}). {causes}"
            ) from problems[0]
        raise type(problems[0])(f"{request.reference!r} can't be fetched as it was locked: {causes}") from problems[0]

    def _check_folder(self, request: LoadRequest, hub: HubReference, pin: LockedComponent) -> None:
        """Refuse a folder on this machine that no longer holds what is locked, though the store does.

        Whoever edits it would otherwise go on running what it was. A folder that isn't here is no change.
        """
        folder = RepoRef.parse(hub.repository_reference)
        try:
            self._hubs().get(folder.scheme).resolve(folder.repo_id, pin.commit)
        except RepositoryNotFoundError:
            return
        except RevisionNotFoundError as error:
            raise TrustError(
                f"{request.reference!r} was changed after it was locked: {self._lock().file} holds sha256:{pin.digest}, and "
                f"{folder} isn't that any more. See what changed (twinkle hub diff {request.reference}), and lock it anew (twinkle "
                f"hub add {request.reference})."
            ) from error

    def _download(self, repository: RepoRef) -> _Fetched:
        """Fetch, or find that what the revision stands for was fetched before; one process at a time."""
        name = str(repository.at(None))
        offline = self._settings.offline
        with self._store.lock(str(repository)):
            source = self._hubs().get(repository.scheme)
            commit = source.resolve(repository.repo_id, repository.revision, offline=offline)
            digest = self._store.digest_at(name, commit) if _COMMIT.fullmatch(commit) else None
            if digest is None:
                if not offline:  # names that a client might write somewhere else are refused before it could
                    listed = dict.fromkeys(source.list_files(repository.repo_id, commit), 0)
                    check_files(listed, str(repository), Limits.from_environment())
                digest = self._store.add(source.download(repository.repo_id, revision=commit, offline=offline))
                self._store.record_source(digest, name, commit)
        return _Fetched(digest, commit, name)

    def _imported(self, request: LoadRequest, hub: HubReference, fetched: _Fetched) -> HubLoaded:
        from twinkle_registry.hub_package import install_finder
        from twinkle_registry.loader import load_stored

        repository = self._store.read(fetched.digest)
        component = find_in_repository(request.kind, hub, repository)
        request = replace(
            request,
            entry=component.entry,
            repository=fetched.repository,
            commit=fetched.commit,
            digest=fetched.digest,
            needs=tuple(component.plugin.requires) if component.plugin else (),
            pure=component.pure,
        )
        grant = self.authorize(request)
        if component.plugin:
            self._check_requirements(component.plugin)
        base = self._base_class(request.kind) if self._base_class and component.entry is None else None
        found = load_stored(grant, install_finder(self.stored), repository, base, component.name)
        label = component.plugin.label if component.plugin else str(_repository(hub))
        return HubLoaded(found, request, label, component.config, True)

    def _check_fetch(self, request: LoadRequest) -> None:
        check_fetch(request, rules=self._rules, denial=self._denial, warn=self._warn)

    def _examined(self, request: LoadRequest) -> Inspection | None:
        if request.digest not in self._store:
            return None
        return inspect_files(request, self._store.read(str(request.digest)))

    def _still_allowed(self, key: tuple[str, HubReference]) -> bool:
        deadline, environment = self._allowed_until.get(key, (0.0, None))
        return time.monotonic() < deadline and os.environ.get(VARIABLE) == environment and not self._checks_loads()


def _repository(hub: HubReference) -> str:
    return _repository_of(hub.repository_reference)


def _repository_of(reference: str) -> str:
    return str(RepoRef.parse(reference).at(None))


def _at(repository: str, commit: str | None) -> str:
    return f"{repository}@{commit}" if commit else repository


def _check_pin(reference: str, wanted: str | None, digest: str, what: str) -> None:
    if wanted not in (None, digest):
        raise TrustError(
            f"{reference!r} isn't what its digest says: sha256:{wanted} was asked for, and sha256:{digest} {what}. "
            "Find out why the files were changed before you write the new digest."
        )
