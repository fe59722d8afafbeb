"""References to components: what a string means, before anything is looked up.

``parse_reference`` reads ``scheme://owner/name[/Component][@revision][#sha256:<64 hex>]``, ``file://`` paths, ``distribution/Name``
and ``Name``. Knows nothing of what is installed, of aliases, or of which schemes have a hub.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from twinkle_registry.errors import ReferenceFormatError

_FORMS = (
    "A component is named by 'Name', 'distribution/Name', 'scheme://owner/name[/Component][@revision][#sha256:<64 hex>]' "
    "or 'file:///path/of/a/repository[@revision]'."
)
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*")
_DISTRIBUTION = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


@dataclass(frozen=True)
class HubReference:
    """A component in a repository.

    Attributes:
        scheme: which hub, such as ``hf``.
        repository: ``owner/name``; for ``file`` a path as it is written, which may end with the component's name.
        component: which of the repository's components, or ``None`` for its only one.
        revision: branch, tag or commit, or ``None`` for the hub's default.
        digest: the SHA-256 (64 hex digits) that the repository's files must have, or ``None``.
    """

    scheme: str
    repository: str
    component: str | None = None
    revision: str | None = None
    digest: str | None = None

    @property
    def repository_reference(self) -> str:
        """The reference of the repository alone: ``scheme://owner/name[@revision]``."""
        return f"{self.scheme}://{self.repository}" + (f"@{self.revision}" if self.revision else "")

    def __str__(self) -> str:
        component = f"/{self.component}" if self.component else ""
        revision = f"@{self.revision}" if self.revision else ""
        digest = f"#sha256:{self.digest}" if self.digest else ""
        return f"{self.scheme}://{self.repository}{component}{revision}{digest}"


@dataclass(frozen=True)
class InstalledReference:
    """A component of an installed plugin; without ``distribution``, of whichever has it."""

    name: str
    distribution: str | None = None

    def __str__(self) -> str:
        return f"{self.distribution}/{self.name}" if self.distribution else self.name


def parse_reference(text: str) -> HubReference | InstalledReference:
    """Read a reference; ``str`` of the result is ``text`` again.

    Raises:
        ReferenceFormatError: it can't be read; says which part, and shows what references look like.
    """
    if "://" in text:
        return _hub_reference(text)
    distribution, slash, name = text.rpartition("/")
    if slash and not _DISTRIBUTION.fullmatch(distribution):
        raise _wrong(text, f"{distribution!r} is no distribution's name")
    if not _IDENTIFIER.fullmatch(name):
        raise _wrong(text, f"{name!r} is no component's name" if name else "the component's name is missing")
    return InstalledReference(name, distribution or None)


def _hub_reference(text: str) -> HubReference:
    from twinkle_hub.errors import HubError
    from twinkle_hub.repository import SCHEME, RepoRef

    scheme, _, rest = text.partition("://")
    if not SCHEME.fullmatch(scheme):
        raise _wrong(text, f"{scheme!r} is no scheme")
    if text != text.rstrip():  # a repository has one spelling: whoever decides on trust compares names
        raise _wrong(text, "it ends with white space")
    rest, hash_sign, fragment = rest.partition("#")
    digest = _DIGEST.fullmatch(fragment)
    if hash_sign and not digest:
        raise _wrong(text, f"'#{fragment}' is no digest")
    # In a path, '@' may be part of a folder's name: there only one after the last '/' begins a revision.
    tail = rest.rfind("/") + 1 if scheme == "file" else 0
    before, at_sign, revision = rest[tail:].partition("@")
    repository, component = rest[:tail] + before, None
    if scheme != "file":
        repository, component = _split(text, repository)
    try:
        RepoRef.parse(f"{scheme}://{repository}{at_sign}{revision}")
    except HubError as error:
        raise ReferenceFormatError(f"The reference {text!r} can't be read: {error}") from None
    return HubReference(scheme, repository, component, revision or None, digest.group(1) if digest else None)


def _split(text: str, path: str) -> tuple[str, str | None]:
    segments = path.split("/")
    if len(segments) not in (2, 3):
        raise _wrong(text, f"{path!r} isn't 'owner/name' or 'owner/name/Component'")
    if len(segments) == 2:
        return path, None
    if not _IDENTIFIER.fullmatch(segments[2]):
        raise _wrong(text, f"{segments[2]!r} is no component's name")
    return "/".join(segments[:2]), segments[2]


def _wrong(text: str, cause: str) -> ReferenceFormatError:
    return ReferenceFormatError(f"The reference {text!r} can't be read: {cause}. {_FORMS}")
