"""The digest of a set of files."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinkle_hub.digest import digest_of, digest_of_bytes, digest_of_folder, files_in
from twinkle_hub.errors import HubError

contents = st.dictionaries(
    st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=8), st.binary(max_size=8), max_size=6
)


def test_it_is_the_sha256_of_sorted_lines_of_path_nul_sha256():
    a, b = hashlib.sha256(b"A").hexdigest(), hashlib.sha256(b"B").hexdigest()
    expected = hashlib.sha256(f"a.py\0{a}\nz/b.py\0{b}\n".encode()).hexdigest()
    assert digest_of_bytes({"z/b.py": b"B", "a.py": b"A"}) == expected


def test_paths_are_sorted_as_bytes():
    lines = [f"{path}\0{'0' * 64}\n".encode() for path in ("a-b", "a/b", "aé")]
    assert digest_of(dict.fromkeys(("aé", "a/b", "a-b"), "0" * 64)) == hashlib.sha256(b"".join(lines)).hexdigest()


@given(contents, st.randoms())
def test_the_order_of_the_files_doesnt_matter(files, random):
    shuffled = list(files.items())
    random.shuffle(shuffled)
    assert digest_of_bytes(dict(shuffled)) == digest_of_bytes(files)


@given(contents, contents)
def test_different_files_have_different_digests(some, others):
    assert (digest_of_bytes(some) == digest_of_bytes(others)) is (some == others)


def test_a_folder_has_the_digest_of_its_files(tmp_path, write):
    write(tmp_path, **{"a.py": "A", "z__b.py": "B", ".hidden": "H"})
    assert digest_of_folder(tmp_path) == digest_of_bytes({"a.py": b"A", "z/b.py": b"B", ".hidden": b"H"})
    assert digest_of_folder(tmp_path, ["a.py"]) == digest_of_bytes({"a.py": b"A"})
    assert files_in(tmp_path) == [".hidden", "a.py", "z/b.py"]


def test_a_symlink_has_no_digest(tmp_path, write):
    write(tmp_path, a="A")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(HubError, match="symlink"):
        digest_of_folder(tmp_path)
