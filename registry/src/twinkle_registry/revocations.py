"""The list of revoked digests, signed by whoever the operator's policy names.

``Revocations.refresh`` fetches a list, checks its signature (Ed25519, RFC 8032) and that it is no older than the one before; then
it becomes the last good copy in ``$TWINKLE_HOME``. Whatever goes wrong, the copy before stays. ``sign_revocations`` is for issuers.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field

from twinkle_hub.errors import HubError
from twinkle_registry._toml_model import TomlModel, parse_model, read_file
from twinkle_registry.errors import PolicyError, TrustError
from twinkle_registry.policy import check_digest
from twinkle_registry.trust_store import write_atomically

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from twinkle_hub.hubs import Hubs

LIST = "revocations.toml"
SIGNATURE = "revocations.toml.sig"
MAX_BYTES = 16 * 2**20
"""No list is larger: a million digests are some 100 bytes each, and more than this is a mistake or an attack."""

_COPY = "revocations.json"
# The signature is over this and what follows, so that it can't be taken for one over anything else that the key may sign.
_CONTEXT = b"twinkle revocations 1\n"
_PREFIX = "ed25519:"


class Revoked(TomlModel):
    """``[[revoked]]``: files that may not be used any more, and why."""

    digest: Annotated[str, AfterValidator(check_digest)]
    reason: str = Field(min_length=1)


class RevocationList(TomlModel):
    """A whole ``revocations.toml``. Each new list has a higher ``serial``, and holds what the one before held."""

    schema_version: Literal[1] = Field(alias="schema")
    serial: int = Field(ge=1)
    revoked: list[Revoked] = Field(default_factory=list)


@dataclass(frozen=True)
class Revocations:
    """A list whose signature was checked.

    Attributes:
        serial: which issue of the list it is.
        reasons: from a digest (64 hex digits) to why it was revoked.
        public_key: whose signature it was, as ``ed25519:<base64>``.
    """

    serial: int
    reasons: dict[str, str]
    public_key: str

    @classmethod
    def load(cls, home: Path, public_key: str | None = None) -> Revocations | None:
        """The last good copy in ``home``, its signature checked again; ``None`` where there is none.

        Args:
            public_key: the key that has to have signed it; without one, a copy isn't used. A copy that another key signed counts
                as none.

        Raises:
            PolicyError: the copy was damaged; says how to fetch it anew.
        """
        found = _read_copy(home)
        if found is None or public_key is None:
            return None
        content, signature, signer = found
        if signer and signer != public_key:
            return None
        try:
            return _checked(content, signature, public_key, str(_copy(home)))[0]
        except (PolicyError, TrustError):
            raise PolicyError(f"{_copy(home)} was changed or damaged. Fetch the list anew: twinkle policy refresh") from None

    @classmethod
    def refresh(cls, source: str, public_key: str, *, home: Path, hubs: Hubs | None = None, offline: bool = False) -> Revocations:
        """Fetch the list and its signature from ``source``, check both, and keep them as the last good copy.

        Args:
            source: a folder (absolute), or a repository on a hub, that holds ``revocations.toml`` and ``revocations.toml.sig``.
            public_key: whose signature it has to be, as ``ed25519:<base64>``.
            home: Twinkle's folder.
            hubs: the hubs (default: the standard ones).
            offline: only use what is cached.

        Raises:
            HubError: it can't be fetched.
            TrustError: the signature is wrong, or the list is older than the last good copy or another one of the same serial.
            PolicyError: the list isn't valid, or the copy can't be written.
        """
        content, signature = _fetched(source, hubs, offline)
        new, canonical = _checked(content, signature, public_key, f"{source}: {LIST}")
        from filelock import FileLock

        copy = _copy(home)
        try:
            copy.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(copy.with_suffix(".lock")):
                _refuse_older(home, new, canonical, source)
                kept = {"list": content.decode(), "signature": signature, "public_key": public_key}
                write_atomically(copy, json.dumps(kept, ensure_ascii=False).encode())
        except OSError as error:
            if isinstance(error, (HubError, TrustError)):
                raise
            raise PolicyError(f"{copy} can't be written: {error}. Set TWINKLE_HOME to a folder that can.") from error
        return new

    def is_revoked(self, digest: str) -> str | None:
        """Why the files with this digest were revoked, or ``None``."""
        return self.reasons.get(digest.removeprefix("sha256:"))


def sign_revocations(path: Path, private_key: bytes) -> Path:
    """Sign the list at ``path``; return the file of the signature, which lies beside it. Publish both in one repository.

    Args:
        path: a ``revocations.toml``.
        private_key: the key in PEM, unencrypted, as ``openssl genpkey -algorithm ed25519`` makes it. Its text is in no message.

    Raises:
        PolicyError: the list isn't valid, or the key is no Ed25519 key.
    """
    key = _private(private_key)
    canonical = _canonical(parse_model(RevocationList, read_file(path), str(path))[0])
    target = path.with_name(path.name + ".sig")
    write_atomically(target, f"{_PREFIX}{base64.b64encode(key.sign(canonical)).decode()}\n".encode())
    return target


def public_key_of(private_key: bytes) -> str:
    """The public key for ``[revocations]`` in a policy, as ``ed25519:<base64>``; see ``sign_revocations``."""
    return _PREFIX + base64.b64encode(_private(private_key).public_key().public_bytes_raw()).decode()


def _private(pem: bytes) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise PolicyError(
            "This isn't an unencrypted Ed25519 private key in PEM. Make one: openssl genpkey -algorithm ed25519 -out key.pem"
        )
    return key


def _canonical(found: RevocationList) -> bytes:
    """What is signed: the list's meaning, not its spelling; hubs may change line ends."""
    rows = sorted([row.digest, row.reason] for row in found.revoked)
    data = {"revoked": rows, "schema": found.schema_version, "serial": found.serial}
    return _CONTEXT + json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def _checked(content: bytes, signature: str, public_key: str, source: str) -> tuple[Revocations, bytes]:
    """The list in ``content`` and its canonical bytes, if ``public_key`` signed it."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    found = parse_model(RevocationList, content, source)[0]
    canonical = _canonical(found)
    try:
        key = Ed25519PublicKey.from_public_bytes(_decoded(public_key))
        key.verify(_decoded(signature), canonical)
    except (InvalidSignature, ValueError):
        raise TrustError(
            f"{source}: the signature isn't one of {public_key} over this list. The last good copy stays in use. "
            "Find out who changed the list or the key; then run: twinkle policy refresh"
        ) from None
    reasons = {row.digest.removeprefix("sha256:"): row.reason for row in found.revoked}
    return Revocations(found.serial, reasons, public_key), canonical


def _decoded(text: str) -> bytes:
    text = text.strip()
    if not text.startswith(_PREFIX):
        raise ValueError("no prefix")
    try:
        return base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None


def _fetched(source: str, hubs: Hubs | None, offline: bool) -> tuple[bytes, str]:
    from twinkle_hub.hubs import Hubs, locate

    folder = locate(source)
    if not isinstance(folder, Path):
        hub = (hubs or Hubs.standard()).get(folder.scheme)
        # Asked first, since a client may answer a download from its cache when the hub can't be reached: that is no refresh.
        commit = hub.resolve(folder.repo_id, folder.revision, offline=offline)
        folder = hub.download(folder.repo_id, revision=commit, allow_patterns=[LIST, SIGNATURE], offline=offline)
    found = []
    for name in (LIST, SIGNATURE):
        file = folder / name
        if not file.is_file():
            raise PolicyError(f"{source} holds no {name}. Its issuer makes it: twinkle policy sign {LIST} --key FILE")
        if file.stat().st_size > MAX_BYTES:
            raise PolicyError(f"{source}: {name} is larger than {MAX_BYTES} bytes; no list is.")
        found.append(read_file(file))
    return found[0], found[1].decode("ascii", "replace")


def _refuse_older(home: Path, new: Revocations, canonical: bytes, source: str) -> None:
    before = _read_copy(home)
    if before is None or before[2] != new.public_key:
        return
    try:
        old, old_canonical = _checked(before[0], before[1], before[2], str(_copy(home)))
    except (PolicyError, TrustError):  # damaged: this is what mends it
        return
    if new.serial < old.serial:
        raise TrustError(
            f"{source}: the list has serial {new.serial}, and serial {old.serial} is known: an old list was put in place of a "
            "newer one. The newer one stays in use. Tell the list's issuer."
        )
    if new.serial == old.serial and canonical != old_canonical:
        raise TrustError(
            f"{source}: there are two lists of serial {new.serial}. The one that is known stays in use. "
            "Its issuer has to give the changed list a higher serial."
        )


def _copy(home: Path) -> Path:
    return home / "revocations" / _COPY


def _read_copy(home: Path) -> tuple[bytes, str, str] | None:
    """List, signature and key of the last good copy, not checked yet."""
    file = _copy(home)
    if not file.exists():
        return None
    try:
        data = json.loads(read_file(file))
        return data["list"].encode(), str(data["signature"]), str(data["public_key"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return b"", "", ""
