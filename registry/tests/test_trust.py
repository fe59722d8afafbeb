"""Trust: nothing from a hub is loaded, or even fetched, unless it is allowed."""

from __future__ import annotations

import copy
import dataclasses
import logging
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from twinkle_hub.local import FileHub
from twinkle_registry import loader
from twinkle_registry.errors import TrustError
from twinkle_registry.hub_package import HubFinder
from twinkle_registry.store import ComponentStore
from twinkle_registry.trust import Grant, LoadRequest, authorize

INSTALLED = LoadRequest("installed", "FocalLoss", "loss", "parts:FocalLoss", distribution="acme-focal 1.0", package="acme_focal")
HUB = LoadRequest("hub", "hf://acme/focal", "loss", repository="hf://acme/focal")


class WatchedHub(FileHub):
    """A hub that says what it was asked for."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, scheme="watched")
        self.calls: list[str] = []

    def resolve(self, repo_id: str, *args, **options) -> str:
        self.calls.append(f"resolve {repo_id}")
        return super().resolve(repo_id, *args, **options)

    def list_files(self, repo_id: str, *args, **options) -> list[str]:
        self.calls.append(f"list_files {repo_id}")
        return super().list_files(repo_id, *args, **options)

    def download(
        self, repo_id: str, *, revision: str | None = None, allow_patterns: Sequence[str] | None = None, **options
    ) -> Path:
        self.calls.append(f"download {repo_id}")
        return super().download(repo_id, revision=revision, allow_patterns=allow_patterns, **options)


def test_installed_plugins_are_allowed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("TWINKLE_TRUST_REMOTE_CODE", raising=False)
    assert authorize(INSTALLED).request == INSTALLED


@pytest.mark.parametrize("value", [None, "", "0", "false", "False", "no", "off", " ", "never", "none", "fasle"])
def test_code_from_hubs_is_denied_by_default_and_by_all_that_is_no_yes(monkeypatch: pytest.MonkeyPatch, value: str | None):
    if value is None:
        monkeypatch.delenv("TWINKLE_TRUST_REMOTE_CODE", raising=False)
    else:
        monkeypatch.setenv("TWINKLE_TRUST_REMOTE_CODE", value)
    with pytest.raises(TrustError, match=r"'hf://acme/focal' is code from a hub.*TWINKLE_TRUST_REMOTE_CODE=1"):
        authorize(HUB)


@pytest.mark.parametrize("value", ["1", "true", "yes", "on"])
def test_the_environment_can_allow_code_from_hubs_and_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, value: str
):
    monkeypatch.setenv("TWINKLE_TRUST_REMOTE_CODE", value)
    with caplog.at_level(logging.WARNING):
        assert authorize(HUB).request == HUB
    assert f"TWINKLE_TRUST_REMOTE_CODE={value} allows the code of hf://acme/focal" in caplog.text


@pytest.mark.parametrize("request_", [INSTALLED, HUB])
def test_a_denial_wins_over_everything(monkeypatch: pytest.MonkeyPatch, request_: LoadRequest):
    monkeypatch.setenv("TWINKLE_TRUST_REMOTE_CODE", "1")
    with pytest.raises(TrustError, match="may not be loaded: because"):
        authorize(request_, denial=lambda request: "because")


@pytest.mark.parametrize(
    "forge",
    [
        lambda: Grant(HUB, None),
        lambda: Grant(HUB, object()),
        lambda: dataclasses.replace(authorize(INSTALLED), _origin=None),
        lambda: pickle.dumps(authorize(INSTALLED)),
        lambda: copy.copy(authorize(INSTALLED)),
    ],
)
def test_a_grant_can_not_be_made_by_hand(forge):
    with pytest.raises((TrustError, TypeError), match="Grant"):
        forge()


@pytest.mark.parametrize("false_grant", [None, INSTALLED, True, "grant", copy.copy(HUB)])
def test_the_loader_takes_nothing_but_a_grant(importable, home, false_grant: object):
    importable.install("acme-focal")
    with pytest.raises(TrustError, match="takes a Grant"):
        loader.load_installed(false_grant)
    assert "acme_focal" not in sys.modules


def test_a_grant_for_one_source_does_not_open_the_other(trusted, importable):
    with pytest.raises(TrustError, match="Loading installed code takes a Grant for it"):
        loader.load_installed(authorize(HUB))


def test_a_grant_is_for_one_digest(trusted, home: Path, write):
    store = ComponentStore(home)
    digest = store.add(write("focal", **{"__init__.py": "raise RuntimeError"}))
    finder = HubFinder(lambda digest: (authorize(HUB), store.read(digest)))
    other = authorize(dataclasses.replace(HUB, digest="0" * 64))
    with pytest.raises(TrustError, match=f"Serving sha256:{digest} takes a Grant for it"):
        finder.admit(other, store.read(digest))


def test_denied_code_is_neither_fetched_nor_stored_nor_executed(
    make_registry, home: Path, tmp_path: Path, write, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TWINKLE_TRUST_REMOTE_CODE", "0")
    trace = tmp_path / "trace"
    trap = f"open({str(trace)!r}, 'w').close()\n"
    write("acme/trap", **{"__init__.py": trap, "setup.py": trap, "conftest.py": trap, "parts.py": trap})
    hub = WatchedHub(tmp_path / "repositories")
    registry = make_registry()
    registry.hubs.add(hub)
    before = set(sys.modules), list(sys.path), list(sys.meta_path)
    for call in (registry.load, lambda *args: registry.check_config(*args, {"a": 1})):
        with pytest.raises(TrustError, match="watched://acme/trap"):
            call("loss", "watched://acme/trap")
    assert hub.calls == []
    assert not trace.exists()
    assert not (home / "components").exists()
    new = {name for name in set(sys.modules) - before[0] if not name.startswith(("twinkle_registry", "twinkle_hub"))}
    assert not any("trap" in name or "_hub.sha256" in name for name in new)
    assert (sys.path, sys.meta_path) == before[1:]


def test_a_mirror_does_not_make_code_trusted(make_registry, write, monkeypatch: pytest.MonkeyPatch):
    from twinkle_registry.project import Project

    monkeypatch.delenv("TWINKLE_TRUST_REMOTE_CODE", raising=False)
    folder = write("focal", **{"__init__.py": "raise RuntimeError"})
    registry = make_registry(project=Project(mirror={"ms://acme/focal": str(folder)}))
    with pytest.raises(TrustError, match=f"file://{folder}"):
        registry.load("loss", "ms://acme/focal")


def test_a_repository_can_not_grant_itself_trust(make_registry, write, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("TWINKLE_TRUST_REMOTE_CODE", raising=False)
    folder = write("focal", **{"twinkle.toml": "trust = true\n[trust]\nallow = true\n", "__init__.py": "raise RuntimeError"})
    with pytest.raises(TrustError):
        make_registry().load("loss", f"file://{folder}")


def test_trust_can_be_withdrawn_while_the_process_runs(trusted, make_registry, write, monkeypatch: pytest.MonkeyPatch):
    folder = write("focal", **{"__init__.py": "class Base: pass\nclass FocalLoss(Base): pass\n"})
    registry = make_registry(base_class=lambda kind: object)
    registry.load("loss", f"file://{folder}/FocalLoss")
    monkeypatch.setenv("TWINKLE_TRUST_REMOTE_CODE", "0")
    with pytest.raises(TrustError):
        registry.load("loss", f"file://{folder}/FocalLoss")
