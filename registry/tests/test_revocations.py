"""The list of revoked digests: only what its issuer signed counts, never an older one, and the last good copy stays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from twinkle_hub.errors import HubError
from twinkle_hub.hubs import Hubs
from twinkle_hub.huggingface import HfHub
from twinkle_hub.testing import HfServer
from twinkle_registry.errors import PolicyError, TrustError
from twinkle_registry.revocations import LIST, MAX_BYTES, SIGNATURE, Revocations, public_key_of, sign_revocations

DIGEST, OTHER = "a" * 64, "b" * 64


def pem(key: object) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


KEY = pem(Ed25519PrivateKey.from_private_bytes(b"k" * 32))
STRANGER = pem(Ed25519PrivateKey.from_private_bytes(b"s" * 32))
PUBLIC = public_key_of(KEY)


def issue(folder: Path, serial: int, digests: dict[str, str], key: bytes = KEY) -> str:
    folder.mkdir(exist_ok=True)
    rows = "".join(f'[[revoked]]\ndigest = "sha256:{digest}"\nreason = "{reason}"\n' for digest, reason in digests.items())
    (folder / LIST).write_text(f"schema = 1\nserial = {serial}\n{rows}")
    sign_revocations(folder / LIST, key)
    return str(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "issued"


def refresh(source: str, home: Path, key: str = PUBLIC, **options: object) -> Revocations:
    return Revocations.refresh(source, key, home=home, **options)


def test_a_signed_list_is_kept_and_says_why_a_digest_is_revoked(folder: Path, home: Path):
    refresh(issue(folder, 1, {DIGEST: "it sends tokens away"}), home)
    kept = Revocations.load(home, PUBLIC)
    assert kept.is_revoked(DIGEST) == kept.is_revoked(f"sha256:{DIGEST}") == "it sends tokens away"
    assert kept.is_revoked(OTHER) is None


def test_without_a_copy_or_a_key_there_is_no_list(folder: Path, home: Path):
    assert Revocations.load(home, PUBLIC) is None
    refresh(issue(folder, 1, {DIGEST: "x"}), home)
    assert Revocations.load(home) is None
    assert Revocations.load(home, public_key_of(STRANGER)) is None


def test_a_list_comes_from_a_hub(home: Path, folder: Path, tmp_path: Path):
    issue(folder, 3, {DIGEST: "x"})
    with HfServer() as server:
        server.repositories.commit("twinkle/revocations", {path.name: path.read_bytes() for path in folder.iterdir()})
        hubs = Hubs([HfHub(endpoint=server.endpoint, cache_dir=tmp_path / "cache", token=False)])
        assert refresh("hf://twinkle/revocations", home, hubs=hubs).serial == 3
    with pytest.raises(HubError):
        refresh("hf://twinkle/revocations", home, hubs=hubs)
    assert Revocations.load(home, PUBLIC).serial == 3


def changed(folder: Path) -> None:
    (folder / LIST).write_text((folder / LIST).read_text().replace(DIGEST, OTHER))


def signed_by_a_stranger(folder: Path) -> None:
    sign_revocations(folder / LIST, STRANGER)


def truncated_signature(folder: Path) -> None:
    (folder / SIGNATURE).write_text((folder / SIGNATURE).read_text()[:40])


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (changed, TrustError, "signature isn't one of ed25519:"),
        (signed_by_a_stranger, TrustError, "signature isn't one of"),
        (truncated_signature, TrustError, "signature isn't one of"),
        (lambda folder: (folder / SIGNATURE).write_bytes(b"\xff\x00"), TrustError, "signature isn't one of"),
        (lambda folder: (folder / SIGNATURE).unlink(), PolicyError, "holds no revocations.toml.sig"),
        (lambda folder: (folder / LIST).unlink(), PolicyError, "holds no revocations.toml"),
        (lambda folder: (folder / LIST).write_text("schema = 1\nserial = -1"), PolicyError, "revocations.toml:2: serial"),
        (lambda folder: (folder / LIST).write_bytes(b"#" * (MAX_BYTES + 1)), PolicyError, "is larger than"),
    ],
)
def test_whatever_is_wrong_with_a_new_list_the_last_good_one_stays(
    folder: Path, home: Path, damage, error: type[Exception], message: str
):
    refresh(issue(folder, 1, {DIGEST: "x"}), home)
    issue(folder, 2, {DIGEST: "x"})
    damage(folder)
    with pytest.raises(error, match=message):
        refresh(str(folder), home)
    assert Revocations.load(home, PUBLIC).serial == 1


def test_an_old_list_can_not_be_put_in_place_of_a_newer_one(folder: Path, home: Path, tmp_path: Path):
    old = issue(tmp_path / "old", 1, {})
    refresh(issue(folder, 2, {DIGEST: "x"}), home)
    with pytest.raises(TrustError, match="serial 1, and serial 2 is known"):
        refresh(old, home)
    assert Revocations.load(home, PUBLIC).is_revoked(DIGEST) == "x"


def test_two_lists_of_one_serial_are_refused_and_the_same_list_again_is_not(folder: Path, home: Path, tmp_path: Path):
    refresh(issue(folder, 2, {DIGEST: "x"}), home)
    assert refresh(str(folder), home).serial == 2
    with pytest.raises(TrustError, match="two lists of serial 2"):
        refresh(issue(tmp_path / "twin", 2, {}), home)


def test_a_new_key_starts_its_own_count(folder: Path, home: Path, tmp_path: Path):
    refresh(issue(folder, 7, {DIGEST: "x"}), home)
    assert refresh(issue(tmp_path / "new", 1, {OTHER: "y"}, STRANGER), home, public_key_of(STRANGER)).serial == 1


def test_the_signature_is_over_the_meaning_not_the_spelling(folder: Path, home: Path):
    issue(folder, 1, {DIGEST: "x", OTHER: "y"})
    text = (folder / LIST).read_text()
    head, first, second = text.split("[[revoked]]\n")
    (folder / LIST).write_bytes(f"# a comment\n{head}[[revoked]]\n{second}[[revoked]]\n{first}".replace("\n", "\r\n").encode())
    assert refresh(str(folder), home).serial == 1


@pytest.mark.parametrize(
    "damage", [lambda text: text[:-20], lambda text: text.replace(DIGEST, OTHER), lambda text: "[]", lambda text: ""]
)
def test_a_copy_that_was_changed_is_an_error_and_a_refresh_mends_it(folder: Path, home: Path, damage):
    refresh(issue(folder, 1, {DIGEST: "x"}), home)
    copy = home / "revocations" / "revocations.json"
    copy.write_text(damage(copy.read_text()))
    with pytest.raises(PolicyError, match=r"changed or damaged\. Fetch the list anew: twinkle policy refresh"):
        Revocations.load(home, PUBLIC)
    refresh(str(folder), home)
    assert Revocations.load(home, PUBLIC).serial == 1


@pytest.mark.parametrize("key", [b"no key", b"", pem(X25519PrivateKey.generate())])
def test_only_an_ed25519_key_signs_and_no_message_holds_it(folder: Path, key: bytes):
    folder.mkdir()
    (folder / LIST).write_text("schema = 1\nserial = 1\n")
    with pytest.raises(PolicyError, match="openssl genpkey -algorithm ed25519") as caught:
        sign_revocations(folder / LIST, key)
    assert not key or key.decode() not in str(caught.value)
    assert not (folder / SIGNATURE).exists()


def test_a_list_that_is_not_valid_is_not_signed(folder: Path):
    folder.mkdir()
    (folder / LIST).write_text('schema = 1\nserial = 1\n[[revoked]]\ndigest = "abc"\nreason = "x"\n')
    with pytest.raises(PolicyError, match=r"revocations.toml:4: revoked\[0\].digest"):
        sign_revocations(folder / LIST, KEY)


def test_cryptography_is_imported_only_where_a_signature_is_checked(home: Path):
    program = (
        "import sys; from pathlib import Path; from twinkle_registry.policies import Policies\n"
        "Policies.current(Path(sys.argv[1])); print('cryptography' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(home)], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
