"""Discovery: which plugins are found, without executing any."""

from __future__ import annotations

import logging
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from twinkle_registry.registry import Registry

BOOBY_TRAP = "raise SystemExit('discovery executed a plugin')"


def test_a_plugin_and_its_components_are_listed(site, make_registry):
    location = site.install("acme-focal", extra='summary = "Focal loss"\nlicense = "MIT"\nrequires = ["torch>=2"]')
    (plugin,) = make_registry().plugins()
    assert plugin[:8] == ("acme-focal", "1.0", "acme-focal", "Focal loss", "MIT", "acme_focal", str(location), ">=1,<2")
    assert list(plugin.requires) == ["torch>=2"]
    (component,) = make_registry().components("loss")
    assert (component.kind, component.name, component.entry, component.pure) == ("loss", "FocalLoss", "parts:FocalLoss", False)
    assert (component.label, component.package, component.summary) == ("acme-focal 1.0", "acme_focal", "Focal loss")


def test_rows_are_plain_data_on_request(site, make_registry):
    site.install("acme-focal")
    registry = make_registry()
    assert registry.plugins()[0].as_dict()["distribution"] == "acme-focal"
    assert registry.components()[0].as_dict()["entry"] == "parts:FocalLoss"


def test_components_are_listed_by_kind(site, make_registry):
    site.install("acme-focal", kind="loss")
    site.install("acme-recall", kind="metric", component="Recall")
    registry = make_registry()
    assert [row.name for row in registry.components()] == ["FocalLoss", "Recall"]
    assert [row.name for row in registry.components("metric")] == ["Recall"]
    assert registry.components("reward") == []


def test_no_plugin_is_imported(site, make_registry, importable):
    site.install("acme-focal", files={"__init__.py": BOOBY_TRAP, "parts.py": BOOBY_TRAP})
    assert len(Registry(home=make_registry()._home).components("loss")) >= 1
    assert "acme_focal" not in sys.modules


def test_an_editable_install_is_found_through_the_import_path(site, make_registry, tmp_path: Path):
    location = site.install("acme-focal", source=tmp_path / "checkout" / "src")
    (plugin,) = make_registry(path=[str(site.folder), str(tmp_path / "checkout" / "src")]).plugins()
    assert plugin.location == str(location)


def test_an_editable_install_is_found_through_an_import_finder(site, home, tmp_path, monkeypatch: pytest.MonkeyPatch):
    location = site.install("acme-focal", source=tmp_path / "checkout" / "src", files={"__init__.py": BOOBY_TRAP})

    class Finder:  # as setuptools' editable installs have one
        @staticmethod
        def find_spec(name, path=None, target=None):
            from importlib.util import spec_from_file_location

            if name == "acme_focal":
                return spec_from_file_location(name, location / "__init__.py", submodule_search_locations=[str(location)])
            return None

    monkeypatch.syspath_prepend(str(site.folder))
    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    assert str(location) in [plugin.location for plugin in Registry(home=home).plugins()]


def test_a_development_install_with_egg_info_is_found(site, make_registry):
    location = site.install("acme-focal")
    (site.folder / "acme_focal-1.0.dist-info").rename(site.folder / "acme_focal.egg-info")
    (site.folder / "acme_focal.egg-info" / "METADATA").rename(site.folder / "acme_focal.egg-info" / "PKG-INFO")
    (plugin,) = make_registry().plugins()
    assert (plugin.label, plugin.location) == ("acme-focal 1.0", str(location))


def test_what_pip_is_about_to_remove_is_not_found(site, make_registry):
    site.install("acme-focal")
    (site.folder / "acme_focal-1.0.dist-info").rename(site.folder / "~cme_focal-1.0.dist-info")
    assert make_registry().plugins() == []


def test_of_two_installs_the_first_on_the_path_counts(site, make_registry, tmp_path: Path):
    site.install("acme-focal", version="1.0")
    other = type(site)(tmp_path / "other")
    other.install("acme-focal", version="2.0")
    path = [str(site.folder), str(other.folder)]
    assert [row.version for row in make_registry(path=path).plugins()] == ["1.0"]
    assert [row.version for row in make_registry(path=path[::-1]).plugins()] == ["2.0"]


def test_other_distributions_and_things_on_the_path_are_passed_over(site, make_registry, tmp_path: Path):
    site.install("acme-focal")
    (site.folder / "plain-1.0.dist-info").mkdir()
    (site.folder / "plain-1.0.dist-info" / "entry_points.txt").write_text("[console_scripts]\nx = twinkle.plugins:main\n")
    archive = tmp_path / "library.zip"
    zipfile.ZipFile(archive, "w").close()
    registry = make_registry(path=[str(archive), str(tmp_path / "missing"), str(site.folder)])
    assert [row.distribution for row in registry.plugins()] == ["acme-focal"]
    assert registry.problems() == []


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda location: (location / "twinkle.toml").unlink(), "its package 'acme_broken' has no twinkle.toml"),
        (lambda location: (location / "twinkle.toml").write_text("schema = 1\nx ="), "twinkle.toml:2: isn't valid TOML"),
        (lambda location: (location / "twinkle.toml").write_text("schema = 1"), "twinkle.toml:1: plugin: is missing"),
        (
            lambda location: location.rename(location.with_name("moved")),
            "its package 'acme_broken', which it announces as a plugin, can't",
        ),
        (lambda location: (location / "twinkle.toml").write_bytes(b"\xff"), "twinkle.toml:1: isn't UTF-8"),
    ],
)
def test_a_broken_plugin_costs_one_warning_and_the_others_are_listed(
    site, make_registry, caplog: pytest.LogCaptureFixture, break_it: Callable[[Path], object], message: str
):
    site.install("acme-focal")
    break_it(site.install("acme-broken"))
    registry = make_registry()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert [row.distribution for row in registry.plugins()] == ["acme-focal"]
            assert [row.name for row in registry.components()] == ["FocalLoss"]
    (problem,) = registry.problems()
    assert message in problem.message
    (record,) = caplog.records
    assert "acme-broken 1.0" in record.message
    assert message in record.message
    assert "\n" not in record.message


def test_an_entry_point_that_leads_out_of_the_site_is_a_problem(site, make_registry):
    site.install("acme-focal")
    (site.folder / "acme_focal-1.0.dist-info" / "entry_points.txt").write_text("[twinkle.plugins]\nx = ../../etc\n")
    assert "can't be found" in make_registry().problems()[0].message


def test_importing_the_registry_imports_nothing_heavy():
    heavy = ["pydantic", "pluggy", "importlib.metadata", "packaging", "tomllib", "filelock", "hashlib", "difflib"]
    code = f"import sys, twinkle_registry.registry; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
