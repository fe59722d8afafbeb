"""The hubs that are known, by scheme, and the one way from a reference to a folder of files.

``fetch`` takes a local path, a reference, or ``owner/name``, applies the project's mirror table, and asks the hub. Knows nothing
of what is fetched, and reads no configuration: tables and hubs are handed in.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from twinkle_hub.errors import HubError, RepositoryNotFoundError
from twinkle_hub.hub import Hub
from twinkle_hub.repository import SCHEME, RepoRef, RepoType

_NOTHING: Mapping[str, str] = MappingProxyType({})


class Hubs:
    """Hubs by scheme. Each scheme belongs to one hub."""

    def __init__(self, hubs: Iterable[Hub] = ()) -> None:
        self._hubs: dict[str, Hub] = {}
        self._providers: dict[str, str] = {}
        for hub in hubs:
            self.add(hub)

    @classmethod
    def standard(cls) -> Hubs:
        """``hf``, ``ms`` and ``file``. Their clients are imported when they are first used."""
        from twinkle_hub.huggingface import HfHub
        from twinkle_hub.local import FileHub
        from twinkle_hub.modelscope import MsHub

        return cls([HfHub(), MsHub(), FileHub()])

    def add(self, hub: Hub, *, provider: str = "twinkle-hub") -> None:
        """Make ``hub`` known; ``provider`` is the distribution that it comes from, for messages.

        Raises:
            HubError: it is no hub, or another hub has its scheme.
        """
        missing = [name for name in ("scheme", "resolve", "list_files", "download") if not hasattr(hub, name)]
        if missing:
            raise HubError(f"{provider} registered {type(hub).__name__}, which is no hub: it has no {', '.join(missing)}.")
        if not isinstance(hub.scheme, str) or not SCHEME.fullmatch(hub.scheme):
            raise HubError(f"{provider} registered a hub whose scheme is {hub.scheme!r}; write one like 'hf', in small letters.")
        if hub.scheme in self._hubs:
            raise HubError(
                f"{provider} registered a hub for {hub.scheme}://, but {self._providers[hub.scheme]} already did. "
                f"Uninstall one of the two, or give one another scheme."
            )
        self._hubs[hub.scheme] = hub
        self._providers[hub.scheme] = provider

    def get(self, scheme: str) -> Hub:
        """The hub with that scheme.

        Raises:
            HubError: there is none; the message lists the schemes that there are.
        """
        try:
            return self._hubs[scheme]
        except KeyError:
            near = difflib.get_close_matches(scheme, self._hubs, n=1)
            hint = f"Did you mean {near[0]}://? " if near else ""
            known = ", ".join(f"{name}://" for name in self)
            raise HubError(
                f"No hub has the scheme {scheme}://. {hint}Known: {known or 'none'}. A plugin adds one through the hook "
                f"twinkle_register_hub; see which plugins are installed: twinkle plugins list."
            ) from None

    def __contains__(self, scheme: object) -> bool:
        return scheme in self._hubs

    def __iter__(self) -> Iterator[str]:
        """The known schemes, sorted."""
        return iter(sorted(self._hubs))


def locate(reference: str, *, revision: str | None = None, mirror: Mapping[str, str] = _NOTHING) -> RepoRef | Path:
    """What ``reference`` stands for after the mirror table: a repository, or a path on this machine that exists.

    An existing path is itself. ``owner/name`` without a scheme is on ``hf``. An entry of ``mirror`` for ``reference@revision``
    comes before one for ``reference``; with the latter, the revision that was asked for is looked up in the mirror.

    Args:
        revision: as ``@revision`` in the reference; not both, unless they are the same.
        mirror: reference to reference, or to an absolute path.

    Raises:
        HubError: the reference can't be read or names a path that doesn't exist, the revision is given twice, or the mirror
            table goes round in a circle or contradicts the revision.
    """
    found = _read(reference)
    if revision is not None:
        found = _with_revision(found, revision, reference)
    if not mirror:
        return found
    table = {str(key): (name, value) for name, value in mirror.items() if isinstance(key := _read(name), RepoRef)}
    chain = [reference]
    seen = {found}
    while isinstance(found, RepoRef):
        target = _mirrored(found, table)
        if target is None or target == found:
            break
        chain.append(str(target))
        if target in seen:
            raise HubError(f"The mirror table goes round in a circle: {' -> '.join(chain)}. Remove one of these from [mirror].")
        seen.add(target)
        found = target
    return found


def fetch(
    reference: str,
    *,
    hubs: Hubs,
    repo_type: RepoType = "model",
    revision: str | None = None,
    mirror: Mapping[str, str] = _NOTHING,
    allow_patterns: Sequence[str] | None = None,
    ignore_patterns: Sequence[str] | None = None,
    offline: bool = False,
) -> Path:
    """The folder with the files of ``reference``, or the path itself where it is one; see ``locate`` and ``Hub.download``.

    For a data set, ``file://`` may also name a single file, which is returned as it is.

    Raises:
        HubError: it can't be located or fetched.
    """
    found = locate(reference, revision=revision, mirror=mirror)
    if isinstance(found, Path):
        return found
    if repo_type == "dataset" and found.scheme == "file" and found.revision is None and Path(found.repo_id).is_file():
        return Path(found.repo_id)  # one file of rows is a data set, by its reference as by its path
    try:
        return hubs.get(found.scheme).download(
            found.repo_id,
            revision=found.revision,
            repo_type=repo_type,
            allow_patterns=allow_patterns,
            ignore_patterns=ignore_patterns,
            offline=offline,
        )
    except HubError as error:
        asked = _read(reference)
        if isinstance(asked, RepoRef) and (asked.scheme, asked.repo_id) != (found.scheme, found.repo_id):
            raise type(error)(f"{error} ({asked} is mirrored to {found} by [mirror] in the project's twinkle.toml.)") from error
        raise


def _read(text: str) -> RepoRef | Path:
    if "://" in text:
        return RepoRef.parse(text)
    if not text.strip():
        raise HubError("An empty reference names nothing. Give a path, owner/name, or a reference such as hf://owner/name.")
    path = Path(text).expanduser()
    if path.exists():
        return path
    if text.startswith(("/", "./", "../", "~")):
        raise RepositoryNotFoundError(f"There is no file or folder {text} (working directory: {Path.cwd()}).")
    return RepoRef.parse(f"hf://{text}")


def _with_revision(found: RepoRef | Path, revision: str, reference: str) -> RepoRef:
    if isinstance(found, Path):
        raise HubError(f"{reference} is a path on this machine and has no revision {revision!r}. Leave the revision out.")
    if found.revision not in (None, revision):
        raise HubError(f"{reference} already names a revision, and revision={revision!r} another. Give one of them.")
    return found.at(revision)


def _mirrored(found: RepoRef, table: Mapping[str, tuple[str, str]]) -> RepoRef | Path | None:
    for asked in dict.fromkeys((found, found.at(None))):
        if str(asked) not in table:
            continue
        name, value = table[str(asked)]
        try:
            target = _read(value)
        except HubError as error:
            raise type(error)(f"[mirror] sends {name!r} to {value!r}: {error}") from error
        if asked.revision is not None or found.revision is None:
            return target
        if isinstance(target, RepoRef) and target.revision in (None, found.revision):
            return target.at(found.revision)
        raise HubError(
            f"{found} asks for revision {found.revision!r}, but [mirror] sends {name!r} to {value!r}, whatever the revision. "
            f"Add an entry for {str(found)!r} to [mirror], or leave the revision out."
        )
    return None
