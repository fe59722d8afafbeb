"""The project's file: where it is found, and what it may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from twinkle_hub.hubs import Hubs, fetch
from twinkle_registry.errors import ManifestError
from twinkle_registry.project import find_project

PROJECT = """\
[alias]
focal = "ms://acme/focal/FocalLoss@v1"

[mirror]
"ms://swift/self-cognition" = "file://./data/self"
"ms://Qwen/Qwen3-0.6B" = "models/tiny"
"hf://a/b" = "ms://a/b"
"""


def write(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "twinkle.toml").write_text(text)
    return folder / "twinkle.toml"


def test_the_project_is_found_from_a_folder_below_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = write(tmp_path, PROJECT)
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    project = find_project()
    assert project.file == file
    assert project.folder == tmp_path
    assert project.alias == {"focal": "ms://acme/focal/FocalLoss@v1"}


def test_mirrors_that_are_relative_paths_begin_at_the_project(tmp_path: Path):
    write(tmp_path, PROJECT)
    mirror = find_project(tmp_path).mirror
    assert mirror == {
        "ms://swift/self-cognition": f"file://{tmp_path}/data/self",
        "ms://Qwen/Qwen3-0.6B": f"{tmp_path}/models/tiny",
        "hf://a/b": "ms://a/b",
    }


@pytest.mark.parametrize("name", ["ms://swift/self-cognition", "ms://Qwen/Qwen3-0.6B"])
def test_a_mirror_is_what_a_fetch_uses(tmp_path: Path, name: str):
    write(tmp_path, PROJECT)
    project = find_project(tmp_path)
    for folder in ("data/self", "models/tiny"):
        (tmp_path / folder).mkdir(parents=True)
    found = fetch(name, hubs=Hubs.standard(), mirror=project.mirror)
    assert found in (tmp_path / "data/self", tmp_path / "models/tiny")


def test_a_manifest_of_a_plugin_is_no_project(tmp_path: Path):
    file = write(tmp_path, PROJECT)
    write(tmp_path / "plugin", 'schema = 1\n[plugin]\nname = "x"\n')
    assert find_project(tmp_path / "plugin").file == file


def test_where_there_is_no_project_there_are_no_aliases(tmp_path: Path):
    project = find_project(tmp_path)
    assert (project.file, dict(project.alias), dict(project.mirror)) == (None, {}, {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[aliases]\n", ":1: aliases: unknown key. Did you mean 'alias'? Known here: schema, alias, mirror."),
        ("\nschema = 2\n[alias]\n", ":2: schema: has to be 1, and this is 2."),
        ("[alias]\na = 'b'\nc = 3\n", ":3: alias.c: has to be a reference in quotes, and this is 3."),
        ("alias = 1\n", ":1: alias: has to be a table, and this is 1."),
        ("[mirror]\n'Qwen/Qwen3' = 'x'\n", ":2: mirror.Qwen/Qwen3: 'Qwen/Qwen3' isn't a reference to a repository"),
        ("[mirror]\n'ms://a/b' = 'file://data'\n", ":2: mirror.ms://a/b: 'file://data' isn't a reference to a repository"),
        ("[alias\n", ":1: isn't valid TOML"),
    ],
)
def test_an_error_names_file_line_and_key(tmp_path: Path, text: str, expected: str):
    file = write(tmp_path, text)
    with pytest.raises(ManifestError) as caught:
        find_project(tmp_path)
    assert str(caught.value).startswith(f"{file}{expected}")
