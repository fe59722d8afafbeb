"""The command line: readable for people, JSON for programs, and working when plugins don't."""

import functools
import json
import subprocess
import sys
from pathlib import Path

import pytest

import twinkle
import twinkle.cli.doctor
import twinkle.cli.plugins
import twinkle.cli.trace
import twinkle.component
from twinkle.cli.app import run
from twinkle_registry.registry import Registry

MANIFEST = """
schema = 1
[plugin]
name = "{name}"
version = "1.0.0"
api = ">=1,<2"
license = "MIT"
summary = "a plugin for a test"
{extra}
[[component]]
kind = "loss"
name = "{component}"
entry = "loss:{component}"
pure = true
config.gamma = {{ type = "float", default = 2.0, min = 0, doc = "focusing strength" }}
"""

LOSS = """
from twinkle.loss import Loss
class {component}(Loss):
    def __init__(self, gamma=2.0): pass
    def __call__(self, inputs, outputs, **kwargs): raise NotImplementedError
"""

HOOKS = """
def twinkle_add_cli(app):
    @app.command("greet")
    def greet(name: str) -> None:
        print("hello", name)

def twinkle_doctor():
    return [("ok", "greeter", "can greet")]
"""


def install(
    site: Path, name: str, component: str, *, source: str | None = None, hooks: str | None = None, broken: bool = False
) -> None:
    package = site / f"twinkle_plugin_{name}"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "loss.py").write_text(source or LOSS.format(component=component))
    extra = 'hooks = { module = "hooks", names = ["twinkle_add_cli", "twinkle_doctor"] }' if hooks else ""
    manifest = MANIFEST.format(name=name, component=component, extra=extra)
    (package / "twinkle.toml").write_text(manifest.replace("schema = 1", "scheme = 1") if broken else manifest)
    if hooks:
        (package / "hooks.py").write_text(hooks)
    info = site / f"twinkle_plugin_{name}-1.0.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: twinkle-plugin-{name}\nVersion: 1.0.0\n")
    (info / "entry_points.txt").write_text(f"[twinkle.plugins]\n{name} = twinkle_plugin_{name}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed plugins that is all that the command line sees."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TWINKLE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    registry = functools.cache(
        lambda: Registry(path=[str(folder)], home=tmp_path / "home", hook_specifications="twinkle.hookspecs")
    )
    for module in (twinkle.component, twinkle.cli.plugins, twinkle.cli.doctor, twinkle.cli.trace):
        monkeypatch.setattr(module, "default_registry", registry)
    return folder


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]):
    """Run ``twinkle`` with arguments; returns its exit status, standard output and standard error."""

    def call(*arguments: str) -> tuple[int, str, str]:
        try:
            run(list(arguments))
            status = 0
        except SystemExit as stop:
            status = int(stop.code or 0)
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    return call


def test_version_is_answered_without_importing_anything_heavy():
    program = "import sys; sys.argv = ['twinkle', '--version']\nfrom twinkle.cli import main; main()\nprint('typer' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == f"twinkle {twinkle.__version__}\nFalse\n"


@pytest.mark.parametrize(
    "arguments", [["--help"], ["plugins", "--help"], ["plugins", "list", "--help"], ["plugins", "doctor", "-h"]]
)
def test_every_command_has_help(site: Path, command, arguments: list[str]):
    status, out, _ = command(*arguments)
    assert status == 0
    assert "Usage" in out


def test_list_shows_components_by_plugin(site: Path, command):
    install(site, "focal_c1", "FocalLoss")
    status, out, _ = command("plugins", "list")
    assert status == 0
    assert "FocalLoss" in out
    assert "twinkle-plugin-focal_c1" in out


def test_list_as_json_is_for_programs_and_can_be_narrowed_to_a_kind(site: Path, command):
    install(site, "focal_c2", "FocalLoss")
    listed = json.loads(command("plugins", "list", "--json", "--kind", "loss")[1])
    assert [row["name"] for row in listed["components"]] == ["FocalLoss"]
    assert json.loads(command("plugins", "list", "--json", "--kind", "metric")[1])["components"] == []


def test_an_unknown_kind_is_an_error_that_lists_kinds(site: Path, command):
    status, _, err = command("plugins", "list", "--kind", "lost")
    assert status == 1
    assert "'lost'" in err
    assert "loss" in err


def test_info_shows_configuration_with_bounds_and_meaning(site: Path, command):
    install(site, "focal_c3", "FocalLoss")
    out = command("plugins", "info", "FocalLoss")[1]
    assert "gamma" in out
    assert "focusing strength" in out
    assert "≥ 0" in out


def test_info_on_a_wrong_name_says_what_was_meant(site: Path, command):
    install(site, "focal_c4", "FocalLoss")
    status, _, err = command("plugins", "info", "FocalLos")
    assert status == 1
    assert "Did you mean 'FocalLoss'?" in err


def test_a_broken_manifest_is_a_warning_and_the_others_are_listed(site: Path, command):
    install(site, "broken_c5", "BrokenLoss", broken=True)
    install(site, "focal_c5", "FocalLoss")
    status, out, err = command("plugins", "list")
    assert status == 0
    assert "FocalLoss" in out
    assert err.count("Warning") == 1
    assert "twinkle-plugin-broken_c5" in err
    assert "twinkle.toml:1" in err


def test_doctor_names_the_component_that_can_not_be_imported_and_exits_with_1(site: Path, command):
    install(site, "ill_c6", "IllLoss", source="raise RuntimeError('out of order')")
    install(site, "well_c6", "WellLoss")
    status, out, _ = command("plugins", "doctor")
    assert status == 1
    assert "out of order" in out
    assert "WellLoss" in out


def test_doctor_is_content_with_a_sound_installation(site: Path, command):
    install(site, "well_c7", "WellLoss", hooks=HOOKS)
    status, out, _ = command("plugins", "doctor", "--json")
    assert status == 0
    assert {"status": "ok", "subject": "greeter", "message": "can greet"} in json.loads(out)


def test_a_plugin_adds_a_command(site: Path, command):
    install(site, "greet_c8", "SomeLoss", hooks=HOOKS)
    assert command("greet", "world")[1] == "hello world\n"


def test_a_plugin_whose_hooks_are_broken_costs_a_warning_not_the_command(site: Path, command):
    install(site, "broken_c9", "SomeLoss", hooks="raise RuntimeError('no greeting today')")
    install(site, "greet_c9", "OtherLoss", hooks=HOOKS)
    status, out, err = command("greet", "world")
    assert (status, out) == (0, "hello world\n")
    assert err.count("Warning") == 1
    assert "no greeting today" in err


def test_a_command_of_a_plugin_that_is_not_installed_says_what_installs_it(site: Path, command):
    status, _, err = command("quickstart")
    assert status == 2
    assert "pip install 'twinkle-plugin-tiny[quickstart]'" in err


def test_shells_complete_commands_kinds_and_names(site: Path, monkeypatch: pytest.MonkeyPatch, command):
    install(site, "focal_d1", "FocalLoss")
    monkeypatch.setenv("_TWINKLE_COMPLETE", "complete_bash")
    for line, expected in {
        "twinkle plug": "plugins",
        "twinkle plugins list --kind los": "loss",
        "twinkle plugins info Foc": "FocalLoss",
    }.items():
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - 1))
        assert command()[1].split() == [expected]
