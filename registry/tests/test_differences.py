"""What changed between two versions of some files."""

import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinkle_registry.differences import MAX_BYTES, differences


@pytest.fixture
def compare(tmp_path):
    def compare(before: dict[str, bytes], after: dict[str, bytes]):
        for name, files in (("before", before), ("after", after)):
            (tmp_path / name).mkdir()
            for path, content in files.items():
                (tmp_path / name / path).write_bytes(content)
        return differences(tmp_path / "before", before, tmp_path / "after", after)

    return compare


def test_the_same_files_dont_differ(compare):
    assert compare({"a.py": b"x = 1\n"}, {"a.py": b"x = 1\n"}) == []


def test_files_that_come_go_and_change_are_told_apart(compare):
    found = compare({"gone.py": b"1\n", "same.py": b"0\n", "x.py": b"1\n"}, {"new.py": b"2\n", "same.py": b"0\n", "x.py": b"2\n"})
    assert [(row.path, row.change) for row in found] == [("gone.py", "removed"), ("new.py", "added"), ("x.py", "changed")]
    assert found[0].diff.startswith("--- a/gone.py\n+++ /dev/null\n")
    assert found[2].diff == "--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-1\n+2\n"


@pytest.mark.parametrize("content", [b"\0\1", b"\xff\xfe", b"x\n" * MAX_BYTES])
def test_what_isnt_text_or_is_too_long_is_only_named(compare, content):
    (row,) = compare({"a": b"x\n"}, {"a": content})
    assert (row.change, row.diff) == ("changed", "")


def test_a_missing_line_end_is_said(compare):
    (row,) = compare({"a": b"x\n"}, {"a": b"x"})
    assert row.diff.endswith("-x\n+x\n\\ No newline at end of file\n")


lines = st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\n"), max_size=4), max_size=6)
texts = st.builds(lambda rows, end: "\n".join(rows) + end, lines, st.sampled_from(["", "\n"]))


@pytest.mark.skipif(shutil.which("patch") is None, reason="needs the program patch")
@given(before=texts.filter(bool), after=texts.filter(bool))
def test_the_program_patch_makes_one_version_of_the_other(tmp_path_factory, before, after):
    old, new = tmp_path_factory.mktemp("old"), tmp_path_factory.mktemp("new")
    (old / "a").write_bytes(before.encode())
    (new / "a").write_bytes(after.encode())
    for row in differences(old, ["a"], new, ["a"]):
        command = ["patch", "--binary", "-s", "-p1", "-d", str(old)]
        subprocess.run(command, input=row.diff.encode(), check=True, capture_output=True)
    assert (old / "a").read_bytes() == after.encode()
