"""What the user decided about code from hubs: ``$TWINKLE_HOME/trust.toml``.

The file speaks the language of policies: ``[[allow]]`` a digest, or an owner's components of a kind; ``[[deny]]`` what was revoked.
It is written here, on the user's word, and may be edited by hand. Knows nothing of asking, and takes no word from a repository.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twinkle_hub.errors import HubError
from twinkle_hub.repository import RepoRef
from twinkle_registry.errors import PolicyError

if TYPE_CHECKING:
    from twinkle_registry.policy import Decision, Policy
    from twinkle_registry.trust import LoadRequest

FILE = "trust.toml"
_DIGEST = re.compile(r"(?:sha256:)?([0-9a-f]{64})")
_Stamp = tuple[int, int, int]


class TrustStore:
    """The decisions of the user of one home. Every question sees the file as it is now.

    Args:
        home: Twinkle's folder.
    """

    def __init__(self, home: Path) -> None:
        self.file = home / FILE
        self._read: tuple[_Stamp | None, Policy] | None = None

    def decide(self, request: LoadRequest) -> Decision:
        """What the user decided about ``request``; a revocation beats every permission. As ``Policy.decide``.

        Raises:
            PolicyError: the file isn't valid; names file, line and key.
        """
        return self.rules().decide(request)

    def may_allow(self, request: LoadRequest) -> bool:
        """Whether ``request`` is allowed, or would be with the right digest where it isn't known yet. Raises as ``decide``."""
        return self.rules().may_allow(request)

    def allow_digest(self, digest: str, reference: str) -> None:
        """Allow the files with this digest, wherever they come from; ``reference`` is what the user saw.

        Lifts the revocation of the digest and of that one repository; its owner's, if there is one, still refuses it.

        Raises:
            PolicyError: ``digest`` is none, or the file isn't valid or can't be written.
        """
        from twinkle_registry.policy import repository_path

        named = _digest(digest)
        lifted = [{"digest": [named]}]
        if repository_path(_bare(reference)):
            lifted.append({"owner": [_repository(reference)]})
        with self._changed() as data:
            data["deny"] = [rule for rule in data["deny"] if rule not in lifted]
            _add(data["allow"], {"digest": [named], "reason": reference})

    def allow_owner(self, owner: str, kind: str) -> None:
        """Allow the owner's components of this kind, those that come later, too. Lifts the owner's revocation.

        Args:
            owner: ``hf://acme``, or for folders ``file:///absolute/folder``.

        Raises:
            PolicyError: ``owner`` or ``kind`` is none, or the file isn't valid or can't be written.
        """
        owner = owner.rstrip("/")
        with self._changed() as data:
            data["deny"] = [rule for rule in data["deny"] if rule != {"owner": [owner]}]
            _add(data["allow"], {"owner": [owner], "kind": [kind]})

    def revoke(self, what: str) -> list[str]:
        """Take back what was allowed, and refuse it from now on, even where a lock pins it.

        Args:
            what: a digest (with or without ``sha256:``), an owner (``hf://acme``), or a reference (``hf://acme/focal@v1``), which
                stands for its repository and for the digests that were allowed when it was shown.

        Returns:
            The permissions that were taken back, for people.

        Raises:
            PolicyError: ``what`` is none of these, or the file isn't valid or can't be written.
        """
        from twinkle_registry.policy import AllowRule, covers, repository_path

        digest = _DIGEST.fullmatch(what.strip())
        target = f"sha256:{digest.group(1)}" if digest else _repository(what)
        taken: list[str] = []
        with self._changed() as data:
            kept, denials = [], [{"digest": [target]} if digest else {"owner": [target]}]
            for rule in data["allow"]:
                digests, owners = rule.get("digest") or [], rule.get("owner") or []
                shown = not digest and covers(target, repository_path(_bare(rule.get("reason", ""))))
                if target in digests or shown or any(covers(target, repository_path(owner)) for owner in owners):
                    taken.append(AllowRule.model_validate(rule).about)
                    denials += [{"digest": [other]} for other in digests if other != target]
                else:
                    kept.append(rule)
            data["allow"] = kept
            for denial in denials:
                _add(data["deny"], denial)
        return taken

    def rules(self) -> Policy:
        """The decisions as a policy. Raises as ``decide``."""
        from twinkle_registry._toml_model import read_file
        from twinkle_registry.policy import parse_policy

        stamp = _stamp(self.file)
        if self._read is None or self._read[0] != stamp:
            content = b"schema = 1" if stamp is None else read_file(self.file)
            policy = parse_policy(content, str(self.file))
            self._read = stamp, policy
        return self._read[1]

    @contextmanager
    def _changed(self) -> Iterator[dict[str, Any]]:
        """The file's rules as data, to change; written when the block ends, whole or not at all, one process at a time."""
        from filelock import FileLock

        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.file.with_suffix(".lock")):
                data = self.rules().model_dump(include={"allow", "deny"}, exclude_none=True, exclude_defaults=True)
                data = {"schema": 1, "allow": data.get("allow", []), "deny": data.get("deny", [])}
                yield data
                self._write(data)
        except OSError as error:
            if isinstance(error, HubError):
                raise
            raise PolicyError(f"{self.file}: can't be written: {error}. Set TWINKLE_HOME to a folder that can.") from error

    def _write(self, data: dict[str, Any]) -> None:
        import tomli_w

        from twinkle_registry.policy import parse_policy

        content = tomli_w.dumps({key: value for key, value in data.items() if value != []}).encode()
        parse_policy(content, str(self.file))
        write_atomically(self.file, content)
        self._read = None


def write_atomically(file: Path, content: bytes) -> None:
    """Write ``content`` to ``file``, whole or not at all; its folder has to be there."""
    import tempfile

    descriptor, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _digest(text: str) -> str:
    found = _DIGEST.fullmatch(text)
    if not found:
        raise PolicyError(f"{text!r} is no digest. Write 'sha256:' and 64 hex digits.")
    return f"sha256:{found.group(1)}"


def _repository(text: str) -> str:
    """The owner or repository that ``text`` names, without component, revision and digest."""
    bare = _bare(text.strip())
    try:
        found = RepoRef.parse(bare)
    except HubError:
        raise PolicyError(
            f"{text!r} is no digest, no owner and no reference. Write 'sha256:…', 'hf://owner' or 'hf://owner/repository'."
        ) from None
    limit = None if found.scheme == "file" else 2
    return f"{found.scheme}://" + "/".join(found.repo_id.split("/")[:limit])


def _bare(text: str) -> str:
    """``text`` without ``#sha256:…``."""
    return text.partition("#")[0]


def _add(rules: list[dict[str, Any]], rule: dict[str, Any]) -> None:
    """Put ``rule`` at the end, unless it says the same as one that is there."""
    essence = {key: value for key, value in rule.items() if key != "reason"}
    if all({key: value for key, value in other.items() if key != "reason"} != essence for other in rules):
        rules.append(rule)


def _stamp(file: Path) -> _Stamp | None:
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PolicyError(f"{file}: can't be read: {error.strerror or error}.") from None
    return found.st_mtime_ns, found.st_size, found.st_ino
