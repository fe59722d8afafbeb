"""Installed distributions, made by hand: folders as ``pip`` leaves them."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from twinkle_registry.project import Project
from twinkle_registry.registry import Registry

MANIFEST = """\
schema = 1

[plugin]
name = "{name}"
version = "1.0"
api = ">=1,<2"
{extra}

[[component]]
kind = "{kind}"
name = "{component}"
entry = "parts:{component}"
"""

MODULE = """\
class {component}:
    pass
"""


def settle(folder: Path) -> None:
    """Give everything below ``folder`` a time in the past that nothing had before, as if the last change were long ago."""
    settle.steps += 1
    then = 1_000_000_000_123_456_789 + settle.steps * 1_000_000_000
    for path in (folder, *folder.rglob("*")):
        os.utime(path, ns=(then, then), follow_symlinks=False)


settle.steps = 0


class Site:
    """A ``site-packages`` folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def install(
        self,
        distribution: str,
        *,
        version: str = "1.0",
        kind: str = "loss",
        component: str = "FocalLoss",
        manifest: str | None = None,
        extra: str = "",
        files: dict[str, str] | None = None,
        source: Path | None = None,
    ) -> Path:
        """Install a plugin, into this folder or as an editable one from ``source``; return the folder of its package."""
        package = distribution.replace("-", "_")
        metadata = self.folder / f"{package}-{version}.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {distribution}\nVersion: {version}\n\nText\n")
        (metadata / "entry_points.txt").write_text(f"[console_scripts]\nx = y:z\n\n[twinkle.plugins]\nmain = {package}\n")
        location = (source or self.folder) / package
        location.mkdir(parents=True)
        if manifest is None:
            manifest = MANIFEST.format(name=distribution, kind=kind, component=component, extra=extra)
        (location / "twinkle.toml").write_text(manifest)
        for name, text in {"__init__.py": "", "parts.py": MODULE.format(component=component), **(files or {})}.items():
            (location / name).parent.mkdir(parents=True, exist_ok=True)
            (location / name).write_text(textwrap.dedent(text))
        return location

    def uninstall(self, distribution: str) -> None:
        package = distribution.replace("-", "_")
        shutil.rmtree(self.folder / package)
        for metadata in self.folder.glob(f"{package}-*.dist-info"):
            shutil.rmtree(metadata)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def make_registry(site: Site, home: Path) -> Callable[..., Registry]:
    def make(**options: object) -> Registry:
        return Registry(**{"path": [str(site.folder)], "project": Project(), "home": home, **options})

    return make


@pytest.fixture
def importable(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """The site is on ``sys.path``; what is imported from it is forgotten afterwards."""
    monkeypatch.syspath_prepend(str(site.folder))
    before = set(sys.modules)
    yield site
    for name in set(sys.modules) - before:
        if name.startswith("acme"):
            del sys.modules[name]


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Code from hubs is trusted; the finder that serves it is this test's own."""
    monkeypatch.setenv("TWINKLE_TRUST_REMOTE_CODE", "1")
    yield
    forget_hub_code()


def forget_hub_code() -> None:
    from twinkle_registry.hub_package import HubFinder

    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, HubFinder)]
    for name in [name for name in sys.modules if name.startswith("twinkle._hub")]:
        del sys.modules[name]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write the files of a repository; return its folder."""

    def make(name: str, **files: str) -> Path:
        folder = tmp_path / "repositories" / name
        for path, text in files.items():
            target = folder / path.replace("__SLASH__", "/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(textwrap.dedent(text))
        return folder

    return make
