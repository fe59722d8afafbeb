"""What the files of a component may be called, how many and how large they may be."""

from __future__ import annotations

import pytest

from twinkle_registry.errors import ConfigError, PluginLoadError
from twinkle_registry.limits import VARIABLES, Limits, check_files


@pytest.mark.parametrize(
    "path",
    [
        "../x.py",
        "a/../x.py",
        "/etc/passwd",
        "a//b.py",
        "./x.py",
        "..\\x.py",
        "C:x.py",
        "a\nb.py",
        "a\0b.py",
        "a\x1b[2J.py",
        "x\u202eyp.py",
        "\udcff.py",
        "con",
        "NUL.py",
        "a/com1.txt",
        "x.py.",
        " x.py",
        "a /x.py",
        "what?.py",
        "d/" * 16 + "x.py",
        "x" * 201,
    ],
)
def test_a_path_that_leads_elsewhere_or_is_not_possible_everywhere_is_refused_by_name(path: str):
    with pytest.raises(PluginLoadError, match=r"hf://acme/focal: the file .* is refused: .*rename") as caught:
        check_files({"fine.py": 1, path: 1}, "hf://acme/focal", Limits())
    assert repr(path) in str(caught.value)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a.py", "A.py"),
        ("A/x.py", "a/y.py"),
        ("é.py", "e\u0301.py"),
        ("ﬁle.py", "file.py"),
        ("straße.py", "STRASSE.py"),
    ],
)
def test_names_that_are_the_same_on_some_systems_are_refused(one: str, other: str):
    with pytest.raises(PluginLoadError, match="the same name on some systems"):
        check_files({one: 1, other: 1}, "x", Limits())


def test_a_file_that_is_a_folder_too_is_refused():
    with pytest.raises(PluginLoadError, match="a file and a folder at once"):
        check_files({"a": 1, "a/b.py": 1}, "x", Limits())


@pytest.mark.parametrize(
    ("limits", "sizes", "variable"),
    [
        (Limits(files=2), {"a": 1, "b": 1, "c": 1}, "TWINKLE_MAX_COMPONENT_FILES"),
        (Limits(file_bytes=10), {"a": 11}, "TWINKLE_MAX_COMPONENT_FILE_BYTES"),
        (Limits(total_bytes=10), {"a": 6, "b": 6}, "TWINKLE_MAX_COMPONENT_BYTES"),
        (Limits(path_length=3), {"a.py": 1}, "TWINKLE_MAX_COMPONENT_PATH"),
        (Limits(depth=2), {"a/b/c": 1}, "TWINKLE_MAX_COMPONENT_DEPTH"),
    ],
)
def test_what_is_beyond_a_limit_is_refused_and_the_variable_named(limits: Limits, sizes: dict[str, int], variable: str):
    with pytest.raises(PluginLoadError, match=variable):
        check_files(sizes, "x", limits)
    check_files(sizes, "x", Limits())


def test_every_limit_is_read_from_its_variable():
    given = {variable: str(number) for number, variable in enumerate(VARIABLES.values(), 5)}
    assert Limits.from_environment(given) == Limits(5, 6, 7, 8, 9)
    assert Limits.from_environment({}) == Limits()


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5", "9" * 30])
def test_a_limit_that_is_no_number_is_an_error_that_names_the_variable(value: str):
    with pytest.raises(ConfigError, match="TWINKLE_MAX_COMPONENT_FILES"):
        Limits.from_environment({"TWINKLE_MAX_COMPONENT_FILES": value})
    with pytest.raises(ConfigError, match="files"):
        Limits(files=-1)
