"""The index: quick where nothing has changed, right where something has."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from twinkle_registry import discovery
from twinkle_registry.index import read_index
from twinkle_registry.registry import Registry


@pytest.fixture
def settled(site) -> Callable[[], None]:
    """Date everything in the site back, each time to a moment of its own."""
    return lambda: sys.modules[type(site).__module__].settle(site.folder.parent)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The manifests that discovery has read."""
    from twinkle_registry import manifest

    seen: list[str] = []
    original = manifest.load_manifest

    def load(path: Path):
        seen.append(path.parent.name)
        return original(path)

    monkeypatch.setattr(manifest, "load_manifest", load)
    return seen


def names(registry: Registry) -> list[str]:
    return [plugin.distribution for plugin in registry.plugins()]


def test_what_has_not_changed_is_not_read_again(site, make_registry, settled, reads):
    site.install("acme-focal")
    settled()
    assert names(make_registry()) == names(make_registry()) == ["acme-focal"]
    assert reads == ["acme_focal"]


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs users")
def test_the_index_of_another_user_is_not_believed(site, make_registry, settled, reads, monkeypatch: pytest.MonkeyPatch):
    site.install("acme-focal")
    settled()
    names(make_registry())
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert names(make_registry()) == ["acme-focal"]
    assert reads == ["acme_focal"] * 2


def test_a_warm_listing_imports_no_pydantic(site, make_registry, settled, home):
    site.install("acme-focal")
    settled()
    make_registry().plugins()
    code = (
        "import sys; from pathlib import Path; from twinkle_registry.registry import Registry;"
        f"r = Registry(path=[{str(site.folder)!r}], home=Path({str(home)!r})); r.components();"
        "print(len(r.plugins()), 'pydantic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "False"]


def test_a_new_plugin_is_noticed_and_only_it_is_read(site, make_registry, settled, reads):
    site.install("acme-focal")
    settled()
    registry = make_registry()
    assert names(registry) == ["acme-focal"]
    site.install("acme-recall")
    assert names(registry) == names(make_registry()) == ["acme-focal", "acme-recall"]
    assert set(reads) == {"acme_focal", "acme_recall"}
    assert reads.count("acme_focal") == 1


def test_a_removed_plugin_is_noticed(site, make_registry, settled):
    site.install("acme-focal")
    site.install("acme-recall")
    settled()
    registry = make_registry()
    assert len(names(registry)) == 2
    site.uninstall("acme-focal")
    assert names(registry) == names(make_registry()) == ["acme-recall"]


def test_an_upgraded_plugin_is_noticed_though_its_manifest_stayed(site, make_registry, settled):
    site.install("acme-focal")
    settled()
    assert make_registry().plugins()[0].version == "1.0"
    metadata = site.folder / "acme_focal-1.0.dist-info"
    (metadata / "METADATA").write_text("Metadata-Version: 2.4\nName: acme-focal\nVersion: 1.1\n\n")
    metadata.rename(site.folder / "acme_focal-1.1.dist-info")
    assert make_registry().plugins()[0].version == "1.1"


def test_an_edited_manifest_of_an_editable_install_is_noticed(site, make_registry, settled, tmp_path: Path):
    source = tmp_path / "checkout"
    location = site.install("acme-focal", source=source)
    settled()
    registry = make_registry(path=[str(site.folder), str(source)])
    assert [row.name for row in registry.components()] == ["FocalLoss"]
    file = location / "twinkle.toml"
    file.write_text(file.read_text().replace('"FocalLoss"', '"OtherLoss"'))
    assert [row.name for row in registry.components()] == ["OtherLoss"]
    assert [row.name for row in make_registry(path=[str(site.folder), str(source)]).components()] == ["OtherLoss"]


def test_a_repaired_manifest_is_noticed(site, make_registry, settled):
    location = site.install("acme-focal", manifest="schema = 1")
    settled()
    registry = make_registry()
    assert len(registry.problems()) == 1
    (location / "twinkle.toml").write_text('schema = 1\nplugin = { name = "x", version = "1", api = ">=1" }')
    assert registry.problems() == []
    assert names(registry) == ["acme-focal"]


def test_a_folder_that_appears_on_the_path_is_noticed(site, make_registry, settled, tmp_path: Path):
    settled()
    registry = make_registry(path=[str(tmp_path / "later")])
    assert names(registry) == []
    type(site)(tmp_path / "later").install("acme-focal")
    assert names(registry) == ["acme-focal"]


def test_what_changes_while_time_stands_still_is_noticed(site, make_registry):
    """A file system's clock may give two changes one time; an index made in that moment isn't kept."""
    for number in range(20):
        site.install(f"acme-n{number:02}")
        now = time.time_ns()
        os.utime(site.folder, ns=(now, now - now % 10_000_000))
        assert len(make_registry().plugins()) == number + 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        lambda content: b"{}" + content[content.index(b"\n") :],
        lambda content: content.replace(b"FocalLoss", b"FocalLass"),
        lambda content: b"\xff\xfe" + content,
        lambda content: b"[1, 2]\n\n\n\n",
        lambda content: b"null",
    ],
)
def test_a_damaged_index_is_made_anew(site, make_registry, settled, home: Path, damage: Callable[[bytes], bytes]):
    site.install("acme-focal")
    settled()
    make_registry().plugins()
    (file,) = (home / "index").glob("*.json")
    good = file.read_bytes()
    file.write_bytes(damage(good))
    assert [row.name for row in make_registry().components()] == ["FocalLoss"]
    assert file.read_bytes() == good


def test_another_path_does_not_use_this_ones_index(site, make_registry, settled, tmp_path: Path):
    site.install("acme-focal")
    other = type(site)(tmp_path / "other")
    other.install("acme-recall")
    settled()
    assert names(make_registry()) == ["acme-focal"]
    assert names(make_registry(path=[str(other.folder)])) == ["acme-recall"]
    assert names(make_registry()) == ["acme-focal"]


def test_a_home_that_can_not_be_written_costs_nothing_but_time(site, make_registry, settled, tmp_path: Path):
    site.install("acme-focal")
    settled()
    (tmp_path / "file").write_text("")
    assert names(make_registry(home=tmp_path / "file")) == ["acme-focal"]


def test_old_index_files_are_forgotten(site, home: Path, settled):
    for number in range(40):
        folder = site.folder / str(number)
        folder.mkdir()
    settled()
    for number in range(40):
        read_index([str(site.folder / str(number))], home)
    assert len(list((home / "index").iterdir())) == 32


WRITER = """
import sys
from pathlib import Path
from twinkle_registry.registry import Registry
home = Path(sys.argv[2])
for round in range(30):
    for file in (home / "index").glob("*.json"):
        file.unlink(missing_ok=True)
    found = Registry(path=[sys.argv[1]], home=home).components()
    assert len(found) == 3, found
"""


def test_writers_at_the_same_time_leave_a_whole_index(site, make_registry, settled, home: Path):
    for number in range(3):
        site.install(f"acme-n{number}")
    settled()
    command = [sys.executable, "-c", WRITER, str(site.folder), str(home)]
    writers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert [writer.communicate()[1] for writer in writers] == ["", "", ""]
    make_registry().plugins()
    assert [file.suffix for file in (home / "index").iterdir()] == [".json"]


def test_a_thousand_plugins_are_all_listed_from_the_index(site, home: Path, settled, monkeypatch: pytest.MonkeyPatch):
    for number in range(1000):
        site.install(f"acme-plugin-number-{number}", extra='summary = "A loss for imbalanced SFT data"\nlicense = "Apache-2.0"')
    settled()
    path = [str(site.folder)]
    first = Registry(path=path, home=home).plugins()
    assert len(first) == 1000
    monkeypatch.setattr(discovery, "_metadata_folders", lambda folder: pytest.fail(f"{folder} was scanned"))
    assert Registry(path=path, home=home).plugins() == first


def test_a_warm_listing_looks_at_no_single_distribution(site, make_registry, settled, monkeypatch: pytest.MonkeyPatch):
    for number in range(5):
        site.install(f"acme-n{number}")
    settled()
    make_registry().plugins()
    monkeypatch.setattr(discovery, "_metadata_folders", lambda folder: pytest.fail(f"{folder} was scanned"))
    assert len(make_registry().plugins()) == 5
