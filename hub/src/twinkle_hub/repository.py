"""References to repositories: ``scheme://owner/name[@revision]``, and for folders ``file:///absolute/path[@revision]``.

A reference is a value: parsing touches neither network nor disk (``file`` paths are made absolute, so that a reference means the
same wherever it is used later). Knows nothing of components: ``/Component`` and ``#sha256:`` are the registry's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Literal
from urllib.parse import quote, unquote

from twinkle_hub.errors import HubError

RepoType = Literal["model", "dataset"]

_FORMS = "hf://owner/name@revision, ms://owner/name@revision, file:///absolute/path@revision, file://./relative/path"
SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
"""What a scheme looks like."""

# Hugging Face and ModelScope allow letters, digits, '-', '_' and '.'; their oldest repositories have no owner ("gpt2").
_REPO_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(?:/[A-Za-z0-9_][A-Za-z0-9._-]*){0,2}")
# What git allows in a ref (git-check-ref-format), cut down to what is safe in a URL and in a path.
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*(?:/[A-Za-z0-9_][A-Za-z0-9._+-]*)*")


@dataclass(frozen=True, slots=True)
class RepoRef:
    """A repository on a hub, at a revision or at its default one.

    Attributes:
        scheme: which hub: ``hf``, ``ms``, ``file``, or one that a plugin adds. Lower case.
        repo_id: ``owner/name``; for ``file`` an absolute path.
        revision: branch, tag or commit; ``None`` is the hub's default branch.
    """

    scheme: str
    repo_id: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str, *, base: Path | None = None) -> RepoRef:
        """Read ``text``; relative ``file`` paths are relative to ``base`` (default: the working directory).

        In ``file`` references a literal ``@`` in the last part of the path is written ``%40`` (and ``%`` as ``%25``).

        Raises:
            HubError: ``text`` isn't a reference; the message shows what one looks like.
        """
        scheme, separator, rest = text.strip().partition("://")
        scheme = scheme.lower()
        if not separator or not SCHEME.fullmatch(scheme):
            raise _malformed(text, "it doesn't begin with a scheme")
        if scheme == "file":
            repo_id, revision = _split_path(text, rest, base)
        else:
            repo_id, at, tail = rest.partition("@")
            repo_id, revision = repo_id.rstrip("/"), tail if at else None
            if not _REPO_ID.fullmatch(repo_id) or ".." in repo_id:
                raise _malformed(text, f"{repo_id!r} isn't of the form owner/name")
        if revision is not None:
            check_revision(revision, text)
        return cls(scheme, repo_id, revision)

    def at(self, revision: str | None) -> RepoRef:
        """This repository at another revision."""
        if revision is not None:
            check_revision(revision, str(self))
        return RepoRef(self.scheme, self.repo_id, revision)

    def __str__(self) -> str:
        parent, slash, last = self.repo_id.replace("%", "%25").replace("#", "%23").rpartition("/")
        bare = last.rstrip()
        last = bare + quote(last[len(bare) :])  # parsing takes white space at the end for none of the name
        return f"{self.scheme}://{parent}{slash}{last.replace('@', '%40')}" + ("" if self.revision is None else f"@{self.revision}")


def check_revision(revision: str, reference: str) -> None:
    """Check that ``revision`` can be the name of a branch, a tag or a commit.

    Raises:
        HubError: it can't (empty, ``..``, spaces, a leading ``-``, …), and so might lead out of the repository.
    """
    if not _REVISION.fullmatch(revision) or ".." in revision:
        raise _malformed(reference, f"{revision!r} can't be the name of a branch, a tag or a commit")


def check_paths(paths: Iterable[str], reference: RepoRef) -> None:
    """Check that the ``paths`` that a hub lists for ``reference`` lie inside the repository, on every system.

    Raises:
        HubError: one is absolute, or leads out of it; names the path.
    """
    for path in paths:
        plain = PurePosixPath(path.replace("\\", "/"))
        if plain.is_absolute() or ".." in plain.parts or PureWindowsPath(path).drive:
            raise HubError(f"{reference} lists a file outside of itself, {path!r}. Don't use this repository.")


def _split_path(text: str, rest: str, base: Path | None) -> tuple[str, str | None]:
    parent, slash, last = rest.rpartition("/")
    last, at, revision = last.partition("@")
    path = Path(unquote(parent + slash + last))
    if not path.name and not path.is_absolute():
        raise _malformed(text, "it holds no path")
    try:
        path = path.expanduser()
    except RuntimeError as error:
        raise _malformed(text, str(error)) from None
    if not path.is_absolute():
        if not rest.startswith("."):
            raise _malformed(text, f"a file reference has three slashes and an absolute path, or begins with './': file://./{rest}")
        path = (base or Path.cwd()) / path
    return Path(os.path.normpath(path)).as_posix(), revision if at else None


def _malformed(text: str, why: str) -> HubError:
    return HubError(f"{text!r} isn't a reference to a repository: {why}. References look like {_FORMS}.")
