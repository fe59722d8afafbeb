"""Finding and loading installed components by reference, and checking their configuration."""

from __future__ import annotations

import pickle
import sys
import time
from pathlib import Path

import pytest

from twinkle_registry.errors import (
    AmbiguousComponentError,
    ComponentNotFoundError,
    ConfigError,
    PluginLoadError,
    ReferenceFormatError,
)
from twinkle_registry.project import Project
from twinkle_registry.registry import LOOK_AGAIN_S

CONFIG = """\
schema = 1
[plugin]
name = "acme-focal"
version = "1.0"
api = ">=1,<2"
[[component]]
kind = "loss"
name = "FocalLoss"
entry = "parts:FocalLoss"
config.gamma = { type = "float", default = 2.0, min = 0, max = 10 }
config.scale = { type = "str", choices = ["group", "batch"] }
config.steps = { type = "int", default = 1 }
config.names = { type = "list" }
config.table = { type = "dict" }
config.flag = { type = "bool", default = false }
config.other = { type = "any" }
"""


def message_of(error: type[Exception], call, *arguments) -> str:
    with pytest.raises(error) as caught:
        call(*arguments)
    return str(caught.value)


@pytest.mark.parametrize("reference", ["FocalLoss", "acme-focal/FocalLoss", "Acme_Focal/FocalLoss"])
def test_a_component_is_loaded_by_its_name(importable, make_registry, reference: str):
    importable.install("acme-focal")
    loaded = make_registry().load("loss", reference)
    assert (loaded.__module__, loaded.__name__) == ("acme_focal.parts", "FocalLoss")


def test_only_the_module_of_the_entry_is_imported(importable, make_registry):
    importable.install("acme-focal", files={"other.py": "raise RuntimeError"})
    importable.install("acme-recall", kind="metric", component="Recall", files={"__init__.py": "raise RuntimeError"})
    make_registry().load("loss", "FocalLoss")
    assert "acme_recall" not in sys.modules


def test_a_project_alias_comes_before_an_installed_name(importable, make_registry):
    importable.install("acme-focal")
    importable.install("acme-other", component="OtherLoss")
    project = Project(alias={"FocalLoss": "acme-other/OtherLoss", "short": "FocalLoss"})
    registry = make_registry(project=project)
    assert registry.load("loss", "FocalLoss").__name__ == "OtherLoss"
    assert registry.load("loss", "short").__module__ == "acme_focal.parts"
    assert registry.load("loss", "acme-focal/FocalLoss").__module__ == "acme_focal.parts"


def test_an_alias_may_stand_for_a_hub_reference(make_registry):
    registry = make_registry(project=Project(alias={"focal": "hf://acme/focal/FocalLoss@v1"}))
    resolved = registry.find("loss", "focal")
    assert str(resolved.hub) == "hf://acme/focal/FocalLoss@v1"
    assert resolved.component is None


def test_a_near_miss_is_named_with_its_plugin(site, make_registry):
    site.install("twinkle-plugin-rl", version="0.1.0", component="GRPOLoss")
    assert message_of(ComponentNotFoundError, make_registry().find, "loss", "GRPOLos") == (
        "No loss named 'GRPOLos'. Did you mean 'GRPOLoss' (twinkle-plugin-rl 0.1.0)? See all: twinkle plugins list --kind loss"
    )


@pytest.mark.parametrize("name", ["grpo", "grpoloss", "GRPO", "GrpoLoss", "GPROLoss"])
def test_short_and_misspelt_forms_find_the_name(site, make_registry, name: str):
    site.install("acme-rl", component="GRPOLoss")
    assert "Did you mean 'GRPOLoss' (acme-rl 1.0)?" in message_of(ComponentNotFoundError, make_registry().find, "loss", name)


def test_a_name_of_another_kind_is_pointed_out(site, make_registry):
    site.install("acme-focal", kind="loss", component="FocalLoss")
    site.install("acme-recall", kind="metric", component="Recall")
    assert "There is a metric of that name (acme-recall 1.0)." in message_of(
        ComponentNotFoundError, make_registry().find, "loss", "Recall"
    )


def test_a_kind_without_components_is_said_to_have_none(make_registry):
    assert message_of(ComponentNotFoundError, make_registry().find, "loss", "Focal") == (
        "No loss named 'Focal'. No installed plugin has any loss. See what is installed: twinkle plugins list"
    )


def test_an_unknown_distribution_is_named(site, make_registry):
    site.install("acme-focal")
    message = message_of(ComponentNotFoundError, make_registry().find, "loss", "acme-focl/FocalLoss")
    assert "No plugin named 'acme-focl' is installed. Did you mean 'acme-focal'?" in message


def test_a_distribution_without_that_name_lists_what_it_has(site, make_registry):
    site.install("acme-focal")
    message = message_of(ComponentNotFoundError, make_registry().find, "loss", "acme-focal/Focal")
    assert "acme-focal has of this kind: FocalLoss." in message


def test_a_name_that_two_plugins_have_lists_both_forms(importable, make_registry):
    importable.install("acme-focal")
    importable.install("acme-fast", version="2.0")
    registry = make_registry()
    assert message_of(AmbiguousComponentError, registry.find, "loss", "FocalLoss") == (
        "More than one plugin has a loss named 'FocalLoss'. Say which: "
        "'acme-fast/FocalLoss' (acme-fast 2.0) or 'acme-focal/FocalLoss' (acme-focal 1.0)."
    )
    assert registry.load("loss", "acme-fast/FocalLoss").__module__ == "acme_fast.parts"


def test_a_malformed_reference_is_refused(make_registry):
    assert "'Focal Loss' can't be read" in message_of(ReferenceFormatError, make_registry().load, "loss", "Focal Loss")


@pytest.mark.parametrize(
    ("parts", "cause"),
    [
        ("import nothing_of_that_name", "ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        ("raise ValueError('no luck')", "ValueError: no luck"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("class Other: pass", "has no such attribute"),
        ("class FocalLoss(", "SyntaxError"),
    ],
)
def test_a_plugin_that_can_not_be_imported_is_named_and_leaves_nothing(importable, make_registry, parts: str, cause: str):
    importable.install("acme-focal", files={"parts.py": parts})
    importable.install("acme-recall", kind="metric", component="Recall")
    registry = make_registry()
    message = message_of(PluginLoadError, registry.load, "loss", "FocalLoss")
    assert cause in message
    assert message.startswith("acme-focal 1.0")
    assert registry.load("metric", "Recall").__name__ == "Recall"
    (importable.folder / "acme_focal" / "parts.py").write_text("class FocalLoss:\n    repaired = True\n")
    sys.modules.pop("acme_focal.parts", None)
    assert registry.load("loss", "FocalLoss").repaired


def test_an_uninstalled_component_is_no_longer_found(importable, make_registry):
    importable.install("acme-focal")
    registry = make_registry()
    registry.load("loss", "FocalLoss")
    importable.uninstall("acme-focal")
    time.sleep(LOOK_AGAIN_S)
    message_of(ComponentNotFoundError, registry.load, "loss", "FocalLoss")


def test_a_name_that_was_loaded_is_remembered_until_it_is_time_to_look_again(
    importable, make_registry, monkeypatch: pytest.MonkeyPatch
):
    importable.install("acme-focal")
    importable.install("acme-recall", kind="metric", component="Recall")
    registry = make_registry()
    monkeypatch.setattr("twinkle_registry.registry.LOOK_AGAIN_S", 1000)
    loaded = registry.load("loss", "FocalLoss")
    with monkeypatch.context() as patch:
        patch.setattr("twinkle_registry.index.Stamps.hold", lambda stamps: pytest.fail("looked at the disk"))
        assert registry.load("loss", "FocalLoss") is loaded
    importable.uninstall("acme-focal")
    assert registry.load("metric", "Recall").__name__ == "Recall"  # not remembered: looks, and so notices the other, too
    message_of(ComponentNotFoundError, registry.load, "loss", "FocalLoss")


def test_what_is_newly_installed_is_found_at_once(importable, make_registry, monkeypatch: pytest.MonkeyPatch):
    importable.install("acme-focal")
    registry = make_registry()
    monkeypatch.setattr("twinkle_registry.registry.LOOK_AGAIN_S", 1000)
    registry.load("loss", "FocalLoss")
    importable.install("acme-recall", kind="metric", component="Recall")
    assert registry.load("metric", "Recall").__name__ == "Recall"


def test_what_is_remembered_holds_for_one_import_path(importable, make_registry, monkeypatch: pytest.MonkeyPatch):
    importable.install("acme-focal")
    registry = make_registry(path=None)
    monkeypatch.setattr("twinkle_registry.registry.LOOK_AGAIN_S", 1000)
    registry.load("loss", "FocalLoss")
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder != str(importable.folder)])
    message_of(ComponentNotFoundError, registry.load, "loss", "FocalLoss")


@pytest.mark.parametrize(
    ("requires", "expected"),
    [
        (
            '["no-such-package>=2"]',
            'needs no-such-package>=2 (not installed). Install what it needs: pip install "no-such-package>=2"',
        ),
        ('["pytest>=999"]', "needs pytest>=999 ("),
        (
            '["no-a", "pytest", "no-b"]',
            'needs no-a (not installed); no-b (not installed). Install what it needs: pip install "no-a" "no-b"',
        ),
    ],
)
def test_missing_requirements_are_named_before_anything_is_imported(importable, make_registry, requires: str, expected: str):
    importable.install("acme-focal", extra=f"requires = {requires}", files={"__init__.py": "raise RuntimeError"})
    message = message_of(PluginLoadError, make_registry().load, "loss", "FocalLoss")
    assert message.startswith("acme-focal 1.0 needs ")
    assert expected in message
    assert "acme_focal" not in sys.modules


def test_requirements_that_are_met_or_do_not_apply_are_no_obstacle(importable, make_registry):
    importable.install("acme-focal", extra="""requires = ["pytest>=1", "no-such-package; python_version < '3'"]""")
    assert make_registry().load("loss", "FocalLoss").__name__ == "FocalLoss"


def test_a_plugin_for_another_api_is_refused(importable, make_registry):
    location = importable.install("acme-focal")
    file = location / "twinkle.toml"
    file.write_text(file.read_text().replace(">=1,<2", ">=2"))
    message = message_of(PluginLoadError, make_registry().load, "loss", "FocalLoss")
    assert "acme-focal 1.0 is written for version >=2 of the component API, and this Twinkle offers 1.0." in message
    assert "pip install --upgrade acme-focal twinkle-core" in message


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"gamma": 0},
        {"gamma": 10.0, "scale": "batch", "steps": -3},
        {"names": ["a"], "table": {}, "flag": True, "other": object()},
        {"names": ("a",), "gamma": None},
    ],
)
def test_a_configuration_that_fits_passes(site, make_registry, config: dict):
    site.install("acme-focal", manifest=CONFIG)
    make_registry().check_config("loss", "FocalLoss", config)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"gama": 1}, "unknown key 'gama'. Did you mean 'gamma'? It takes: gamma, scale, steps, names, table, flag, other."),
        ({"gamma": "2"}, "gamma='2': it has to be of type float, not str."),
        ({"gamma": -1}, "gamma=-1: it has to be at least 0."),
        ({"gamma": 11}, "gamma=11: it has to be at most 10."),
        ({"gamma": float("nan")}, "gamma=nan: it has to be at least 0."),
        ({"gamma": True}, "gamma=True: it has to be of type float, not bool."),
        ({"scale": "all"}, "scale='all': it has to be one of 'group', 'batch'."),
        ({"steps": 1.5}, "steps=1.5: it has to be of type int, not float."),
        ({"names": "ab"}, "names='ab': it has to be of type list, not str."),
        ({"flag": 1}, "flag=1: it has to be of type bool, not int."),
        (
            {"steps": "1", "flag": "no"},
            "steps='1': it has to be of type int, not str; flag='no': it has to be of type bool, not str.",
        ),
    ],
)
def test_a_configuration_that_does_not_fit_names_component_key_and_what_is_allowed(
    site, make_registry, config: dict, expected: str
):
    site.install("acme-focal", manifest=CONFIG)
    message = message_of(ConfigError, make_registry().check_config, "loss", "FocalLoss", config)
    assert message == f"The loss 'FocalLoss' (acme-focal 1.0) doesn't take this configuration: {expected}"


def test_a_component_that_declares_nothing_takes_anything(site, make_registry):
    site.install("acme-focal")
    make_registry().check_config("loss", "FocalLoss", {"whatever": 1})


@pytest.mark.parametrize("error", [ComponentNotFoundError, AmbiguousComponentError, ConfigError, PluginLoadError])
def test_errors_pickle(error: type[Exception]):
    again = pickle.loads(pickle.dumps(error("what happened")))
    assert (type(again), str(again)) == (error, "what happened")


def test_a_registry_needs_no_arguments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    from twinkle_registry.registry import Registry

    monkeypatch.setenv("TWINKLE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    registry = Registry()
    assert registry.project.file is None
    assert {"hf", "ms", "file"} <= set(registry.hubs)
    message_of(ComponentNotFoundError, registry.find, "loss", "NoLossHasThisName")


def test_the_readmes_snippets_run(site, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    site.install("acme-focal")
    monkeypatch.syspath_prepend(str(site.folder))
    monkeypatch.setenv("TWINKLE_HOME", str(home))
    text = (Path(__file__).parents[1] / "README.md").read_text()
    snippets = [part.split("```")[0] for part in text.split("```python\n")[1:]]
    assert len(snippets) == 1
    for snippet in snippets:
        exec(snippet, {})
    assert "FocalLoss acme-focal 1.0" in capsys.readouterr().out
