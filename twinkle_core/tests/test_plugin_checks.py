"""``twinkle plugins doctor`` and ``trace``: what is wrong and which command mends it; where a name leads, executing nothing."""

import functools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import twinkle.cli.doctor
import twinkle.cli.plugins
import twinkle.cli.trace
import twinkle.component
from twinkle.cli.app import run
from twinkle.cli.doctor import Finding, examine
from twinkle.cli.trace import trace_reference
from twinkle_registry.lock import LOCK, LockedComponent, LockFile
from twinkle_registry.project import find_project
from twinkle_registry.registry import Registry
from twinkle_registry.store import ComponentStore

MANIFEST = """
schema = 1
[plugin]
name = "{name}"
version = "1.0.0"
api = "{api}"
{extra}
[[component]]
kind = "loss"
name = "{component}"
entry = "loss:{component}"
"""
LOSS = """
from pathlib import Path
from twinkle.loss import Loss
Path({canary!r}).touch()
class {component}(Loss):
    def __call__(self, inputs, outputs, **kwargs): raise NotImplementedError
"""


class Installation:
    """A folder of installed plugins, a project and a home, all that the command line sees."""

    def __init__(self, folder: Path) -> None:
        self.site, self.project, self.home = folder / "site", folder / "project", folder / "home"
        self.canary = folder / "canary"
        self.site.mkdir()
        self.project.mkdir()

    def install(
        self,
        distribution: str,
        component: str = "FocalLoss",
        *,
        name: str | None = None,
        api: str = ">=1,<2",
        extra: str = "",
        version: str = "1.0.0",
        packages: list[str] | None = None,
        source: str | None = None,
        site: Path | None = None,
    ) -> None:
        site = site or self.site
        package = distribution.replace("-", "_")
        for folder in packages or [package]:
            self.write(
                site / folder,
                {
                    "__init__.py": "",
                    "loss.py": source or LOSS.format(component=component, canary=str(self.canary)),
                    "twinkle.toml": MANIFEST.format(name=name or distribution, component=component, api=api, extra=extra),
                },
            )
        points = "".join(f"p{number} = {folder}\n" for number, folder in enumerate(packages or [package]))
        self.write(
            site / f"{package}-{version}.dist-info",
            {
                "METADATA": f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n",
                "entry_points.txt": f"[twinkle.plugins]\n{points}",
            },
        )

    def repository(self, **more: str) -> Path:
        """A repository of a component, in the project."""
        manifest = MANIFEST.format(name="focal", component="FocalLoss", api=">=1,<2", extra="")
        files = {"twinkle.toml": manifest, "loss.py": LOSS.format(component="FocalLoss", canary=str(self.canary)), **more}
        return self.write(self.project / "focal", files)

    def lock(self, reference: str, digest: str, commit: str = "a" * 40) -> None:
        entry = LockedComponent(reference, commit, digest, ("loss",))
        LockFile.read(self.project / LOCK).with_component(entry).save()

    def write(self, folder: Path, files: dict[str, str]) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            (folder / path).write_text(text)
        return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    here = Installation(tmp_path)
    monkeypatch.syspath_prepend(str(here.site))
    for name, value in {"TWINKLE_HOME": str(here.home), "COLUMNS": "250", "NO_COLOR": "1", "TWINKLE_POLICY": ""}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TWINKLE_TRUST_REMOTE_CODE", raising=False)
    monkeypatch.chdir(here.project)

    @functools.cache
    def registry() -> Registry:
        project = find_project(here.project)
        return Registry(path=[str(here.site)], home=here.home, project=project, hook_specifications="twinkle.hookspecs")

    for module in (twinkle.component, twinkle.cli.plugins, twinkle.cli.doctor, twinkle.cli.trace):
        monkeypatch.setattr(module, "default_registry", registry)
    yield here
    for name, module in list(sys.modules.items()):  # what the doctor imported must not stand in for the real plugin of that name
        if (getattr(module, "__file__", None) or "").startswith(str(here.site)):
            del sys.modules[name]


@pytest.fixture
def found() -> Callable[[str], Finding]:
    """The one finding that isn't ok and begins with a word, or whose message holds it."""

    def search(word: str) -> Finding:
        rows = [row for row in examine() if row.status != "ok" and word in row.message]
        assert len(rows) == 1, "\n".join(map(str, rows or examine()))
        return rows[0]

    return search


def command(*arguments: str) -> int:
    try:
        run(list(arguments))
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_a_component_that_two_plugins_have_is_shadowed(here: Installation, found):
    here.install("twinkle-plugin-e1")
    here.install("twinkle-plugin-e2")
    row = found("shadowed")
    assert (row.status, row.subject) == ("warning", "loss FocalLoss")
    assert "'twinkle-plugin-e1/FocalLoss' or 'twinkle-plugin-e2/FocalLoss'" in row.message
    assert "pip uninstall" in row.message


def test_an_entry_point_that_leads_to_the_same_package_twice_is_a_duplicate(here: Installation, found):
    here.install("twinkle-plugin-e3", packages=["twinkle_plugin_e3", "twinkle_plugin_e3"])
    row = found("duplicate")
    assert row.status == "error"
    assert "'twinkle_plugin_e3' 2 times" in row.message


def test_two_distributions_that_announce_the_same_package_are_duplicates(here: Installation, found):
    here.install("twinkle-plugin-e4", packages=["shared_e4"])
    here.install("twinkle-plugin-e5", packages=["shared_e4"], name="twinkle-plugin-e4")
    assert "pip uninstall twinkle-plugin-e5" in next(row for row in examine() if "same package" in row.message).message


def test_two_plugins_of_one_name_are_duplicates(here: Installation, found):
    here.install("twinkle-plugin-e6", "OneLoss", name="focal")
    here.install("twinkle-plugin-e7", "OtherLoss", name="focal")
    row = found("plugins named 'focal'")
    assert "twinkle-plugin-e6 (twinkle_plugin_e6)" in row.message


def test_a_distribution_in_two_folders_of_the_path_is_shadowed(
    here: Installation, found, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    here.install("twinkle-plugin-e8", "E8Loss")
    older = tmp_path / "older"
    here.install("twinkle-plugin-e8", "E8Loss", version="0.9.0", site=older)
    monkeypatch.setattr("sys.path", [*sys.path, str(older)])
    row = found("never used")
    assert row.subject == "twinkle-plugin-e8"
    assert "0.9.0" in row.message
    assert "pip uninstall twinkle-plugin-e8" in row.message


def test_a_plugin_for_another_api_is_outdated_and_said_once(here: Installation, found):
    here.install("twinkle-plugin-e9", "E9Loss", api=">=9")
    row = found("outdated")
    assert row.subject == "twinkle-plugin-e9 1.0.0"
    assert "pip install --upgrade twinkle-plugin-e9" in row.message
    assert not here.canary.exists()


def test_a_plugin_that_needs_what_isnt_there_is_incompatible(here: Installation, found):
    here.install("twinkle-plugin-f1", "F1Loss", extra='requires = ["no-such-package>=2"]')
    row = found("incompatible")
    assert 'pip install "no-such-package>=2"' in row.message


def test_a_plugin_that_cant_be_imported_is_broken(here: Installation, found):
    here.install("twinkle-plugin-f2", "F2Loss", source="1 / 0")
    row = found("broken")
    assert "ZeroDivisionError" in row.message
    assert "pip install --upgrade twinkle-plugin-f2" in row.message


def test_every_error_of_a_manifest_is_shown(here: Installation, found):
    here.install("twinkle-plugin-f3", "F3Loss", extra="colour = 1\nshape = 2")
    row = found("broken")
    assert "colour" in row.message
    assert "shape" in row.message


def test_parts_of_twinkle_with_different_versions_are_outdated(here: Installation, found):
    here.install("twinkle-plugin-losses", "OldLoss", version="99.0.0")
    row = found("released together")
    assert "twinkle-core" in row.message
    assert "pip install --upgrade" in row.message


def test_a_home_that_cant_be_used_is_an_error(here: Installation, found, monkeypatch: pytest.MonkeyPatch):
    here.home.write_text("a file")
    row = found("unreadable")
    assert (row.status, row.subject) == ("error", "home")
    assert "TWINKLE_HOME" in row.message


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_home_that_may_not_be_written_is_an_error(here: Installation, found):
    here.home.mkdir(mode=0o500)
    assert "chmod" in found("unreadable").message


def test_a_damaged_component_in_the_cache_is_found_and_left_alone(here: Installation, found):
    digest = ComponentStore(here.home).add(here.repository())
    folder = here.home / "components" / "sha256" / digest
    assert [row.message for row in examine() if row.subject == "cache"] == [
        "1 component(s) from hubs, each with the digest that it is stored under"
    ]
    (folder / "loss.py").chmod(0o644)
    (folder / "loss.py").write_text("evil")
    row = found("damaged")
    assert row.status == "error"
    assert "twinkle hub sync" in row.message
    assert folder.is_dir()


def test_what_an_interrupted_download_left_is_found_once_it_is_old(here: Installation, found):
    folder = here.home / "components" / "sha256" / ".tmp123"
    folder.mkdir(parents=True)
    assert not [row for row in examine() if row.subject == "cache" and row.status != "ok"]
    os.utime(folder, (time.time() - 7200, time.time() - 7200))
    assert "twinkle hub gc" in found("left over").message


def test_a_locked_component_that_isnt_cached_is_drift(here: Installation, found):
    here.lock("hf://acme/focal@v1", "b" * 64)
    row = found("lock drift")
    assert (row.status, row.subject) == ("warning", "hf://acme/focal@v1")
    assert "twinkle hub sync" in row.message


def test_a_folder_that_changed_after_it_was_locked_is_drift(here: Installation, found):
    folder = here.repository()
    here.lock(f"file://{folder}", ComponentStore(here.home).add(folder))
    assert not [row for row in examine() if "drift" in row.message]
    (folder / "loss.py").write_text("changed")
    row = found("lock drift")
    assert f"twinkle hub add file://{folder}" in row.message


def test_a_lock_that_cant_be_read_is_a_finding(here: Installation, found):
    (here.project / LOCK).write_text("schema = 2\n")
    assert "schema" in found(LOCK).message


def test_trace_shows_candidates_and_the_chosen_one_without_importing_it(here: Installation):
    here.install("twinkle-plugin-f4", "F4Loss")
    steps = {step.step: step for step in trace_reference("loss", "F4Loss").steps}
    assert steps["chosen"].result == "twinkle-plugin-f4/F4Loss 1.0.0"
    assert steps["candidate"].why == str(here.site / "twinkle_plugin_f4" / "loss.py")
    assert steps["authorize"].result == "allowed"
    assert not here.canary.exists()


def test_trace_of_an_ambiguous_name_shows_both_and_the_error(here: Installation):
    here.install("twinkle-plugin-f5")
    here.install("twinkle-plugin-f6")
    steps = trace_reference("loss", "FocalLoss").steps
    assert [step.result.partition("/")[0] for step in steps if step.step == "candidate"] == [
        "twinkle-plugin-f5",
        "twinkle-plugin-f6",
    ]
    assert steps[-1].step == "error"
    assert "Say which" in steps[-1].why


def test_trace_follows_alias_mirror_lock_and_cache_and_executes_nothing(here: Installation):
    folder = here.repository()
    digest = ComponentStore(here.home).add(folder)
    (here.project / "twinkle.toml").write_text(
        'schema = 1\n[alias]\nfocal = "hf://acme/focal"\n[mirror]\n"hf://acme/focal" = "ms://copies/focal"\n'
    )
    here.lock("ms://copies/focal", digest)
    steps = {step.step: step for step in trace_reference("loss", "focal").steps}
    assert steps["alias"].result == "hf://acme/focal"
    assert steps["mirror"].result.startswith("ms://copies/focal")
    assert steps["lock"].result == f"sha256:{digest}"
    assert steps["cache"].result == str(here.home / "components" / "sha256" / digest)
    assert steps["component"].result == "FocalLoss, entry loss:FocalLoss"
    assert "files" in steps["scan"].result
    assert steps["authorize"].result == "allowed"
    assert LOCK in steps["authorize"].why
    assert not here.canary.exists()


def test_trace_says_what_would_allow_a_reference_that_nothing_allows(here: Installation):
    step = trace_reference("loss", "hf://acme/focal").steps[-1]
    assert step.result == "would ask"
    assert "twinkle hub add hf://acme/focal" in step.why


@pytest.mark.parametrize("default", ["ask", "deny"])
def test_trace_names_the_operators_rule(here: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, default: str):
    policy = tmp_path / "policy.toml"
    policy.write_text(f'schema = 1\ndefault = "{default}"\n[[deny]]\nowner = "hf://acme"\nreason = "under review"\n')
    monkeypatch.setenv("TWINKLE_POLICY", str(policy))
    step = trace_reference("loss", "hf://acme/focal").steps[-1]
    assert step.result == "refused"
    assert "under review" in step.why
    other = trace_reference("loss", "hf://other/focal").steps[-1]
    assert other.result == ("would ask" if default == "ask" else "refused")


def test_trace_as_json_and_for_people(here: Installation, capsys: pytest.CaptureFixture[str]):
    here.install("twinkle-plugin-f7", "F7Loss")
    assert command("plugins", "trace", "F7Loss", "--json") == 0
    [trace] = json.loads(capsys.readouterr().out)["traces"]
    assert (trace["kind"], trace["reference"]) == ("loss", "F7Loss")
    assert command("plugins", "trace", "F7Loss") == 0
    assert "twinkle-plugin-f7/F7Loss" in capsys.readouterr().out


def test_trace_of_everything_says_which_file_each_component_comes_from(here: Installation, capsys: pytest.CaptureFixture[str]):
    here.install("twinkle-plugin-f8", "F8Loss")
    here.lock("hf://acme/focal", ComponentStore(here.home).add(here.repository()))
    assert command("plugins", "trace", "--json") == 0
    rows = json.loads(capsys.readouterr().out)["components"]
    assert [(row["name"], row["allowed"]) for row in rows] == [("F8Loss", "installed"), ("FocalLoss", "locked")]
    assert rows[0]["file"] == str(here.site / "twinkle_plugin_f8" / "loss.py")
    assert not here.canary.exists()


def test_trace_of_a_wrong_name_says_what_was_meant(here: Installation, capsys: pytest.CaptureFixture[str]):
    here.install("twinkle-plugin-f9", "F9Loss")
    assert command("plugins", "trace", "F9Los") == 1
    assert "Did you mean 'F9Loss'?" in capsys.readouterr().err


def test_trace_of_everything_leaves_no_path_cut_off(here: Installation, capsys: pytest.CaptureFixture[str], monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    here.install("twinkle-plugin-with-a-name-that-is-long", "ALossWithANameThatIsLongerThanItsColumn")
    assert command("plugins", "trace") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "…" not in "".join(lines)
    assert max(map(len, lines)) <= 80


def test_a_policy_that_isnt_valid_is_an_error(here: Installation, found, monkeypatch: pytest.MonkeyPatch):
    policy = here.project / "policy.toml"
    policy.write_text('schema = 1\ndefalt = "deny"\n')
    monkeypatch.setenv("TWINKLE_POLICY", str(policy))
    row = found("defalt")
    assert (row.status, row.subject) == ("error", "policy")
    assert row.message.endswith(f"twinkle policy check {policy}")


def test_a_list_of_revoked_digests_that_was_never_fetched_is_an_error(here: Installation, found, monkeypatch: pytest.MonkeyPatch):
    policy = here.project / "policy.toml"
    policy.write_text(f'schema = 1\n[revocations]\nsource = "revoked"\npublic_key = "ed25519:{"A" * 43}="\n')
    monkeypatch.setenv("TWINKLE_POLICY", str(policy))
    assert found("nothing from hubs is loaded").message.endswith("Run: twinkle policy refresh")
