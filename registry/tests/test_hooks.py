"""Hooks: loaded when first called, and contained where they break."""

from __future__ import annotations

import logging
import sys
import threading
from types import ModuleType

import pytest

from twinkle import hookspecs
from twinkle_hub.local import FileHub
from twinkle_registry.errors import RegistryError, TrustError
from twinkle_registry.registry import Registry


@pytest.fixture
def registry(importable, make_registry) -> Registry:
    return make_registry(hook_specifications="twinkle.hookspecs")


@pytest.fixture
def plugin(importable):
    def install(distribution: str, hooks: str, *names: str) -> None:
        listed = ", ".join(f'"{name}"' for name in names)
        importable.install(
            distribution, component=distribution.title().replace("-", ""), files={"hooks.py": hooks},
            extra=f'hooks = {{ module = "hooks", names = [{listed}] }}',
        )  # fmt: skip

    return install


def test_a_hook_is_called_with_the_arguments_that_it_wants(registry: Registry, plugin):
    plugin("acme-a", "def twinkle_step_end(step): return step * 2", "twinkle_step_end")
    plugin("acme-b", "def twinkle_step_end(run_id, measurements): return run_id", "twinkle_step_end")
    assert sorted(map(str, registry.hooks.call("twinkle_step_end", run_id="r", step=3, measurements={}))) == ["6", "r"]


def test_the_hook_module_is_imported_when_the_first_of_its_hooks_is_called(registry: Registry, plugin):
    plugin("acme-a", "def twinkle_doctor(): return [('ok', 'a', 'fine')]", "twinkle_doctor")
    registry.plugins()
    registry.hooks.call("twinkle_run_end", run_id="r", error=None)
    assert "acme_a.hooks" not in sys.modules
    assert registry.hooks.call("twinkle_doctor") == [[("ok", "a", "fine")]]
    assert "acme_a.hooks" in sys.modules


def test_without_implementations_nothing_is_imported(registry: Registry, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pluggy", None)
    assert registry.hooks.call("twinkle_doctor") == []


def test_a_marker_may_order_implementations(registry: Registry, plugin):
    plugin("acme-a", "def twinkle_doctor(): return 'a'", "twinkle_doctor")
    plugin("acme-b", "def twinkle_doctor(): return 'b'", "twinkle_doctor")
    marked = "from twinkle.hookspecs import hookimpl\n@hookimpl(trylast=True)\ndef twinkle_doctor(): return 'last'"
    plugin("acme-c", marked, "twinkle_doctor")
    assert registry.hooks.call("twinkle_doctor")[-1] == "last"


def test_only_the_hooks_that_the_manifest_names_are_called(registry: Registry, plugin):
    plugin("acme-a", "def twinkle_doctor(): return 'a'\ndef twinkle_run_end(): return 'hidden'", "twinkle_doctor")
    assert registry.hooks.call("twinkle_doctor") == ["a"]
    assert registry.hooks.call("twinkle_run_end", run_id="r", error=None) == []


def test_a_plugin_that_is_installed_later_takes_part(registry: Registry, plugin):
    assert registry.hooks.call("twinkle_doctor") == []
    plugin("acme-a", "def twinkle_doctor(): return 'a'", "twinkle_doctor")
    assert registry.hooks.call("twinkle_doctor") == ["a"]


@pytest.mark.parametrize(
    ("hooks", "message"),
    [
        ("raise RuntimeError('at import')", "RuntimeError: at import"),
        ("import no_such_package", "No module named 'no_such_package'"),
        ("def twinkle_doctor(): raise ValueError('inside')", "its hook 'twinkle_doctor' raised ValueError: inside"),
        ("def other(): pass", "has no such function"),
        ("def twinkle_doctor(nonsense): pass", "its hook 'twinkle_doctor' can't be used"),
        (
            "from twinkle.hookspecs import hookimpl\n@hookimpl(wrapper=True)\ndef twinkle_doctor(): return (yield)",
            "it wraps other plugins' hooks",
        ),
    ],
)
def test_a_broken_hook_costs_one_warning_that_names_the_plugin(
    registry: Registry, plugin, caplog: pytest.LogCaptureFixture, hooks: str, message: str
):
    plugin("acme-broken", hooks, "twinkle_doctor")
    plugin("acme-good", "def twinkle_doctor(): return 'good'", "twinkle_doctor")
    with caplog.at_level(logging.WARNING):
        assert [registry.hooks.call("twinkle_doctor") for _ in range(3)] == [["good"]] * 3
    (record,) = caplog.records
    assert "acme-broken 1.0" in record.message
    assert message in record.message


def test_missing_requirements_keep_hooks_from_being_called(registry: Registry, importable, caplog: pytest.LogCaptureFixture):
    extra = 'requires = ["no-such-package"]\nhooks = { module = "hooks", names = ["twinkle_doctor"] }'
    importable.install("acme-a", extra=extra, files={"hooks.py": "raise RuntimeError"})
    assert registry.hooks.call("twinkle_doctor") == []
    assert "needs no-such-package (not installed)" in caplog.text


def test_a_hook_that_does_not_exist_is_an_error_for_the_caller_and_a_warning_for_the_plugin(
    registry: Registry, plugin, caplog: pytest.LogCaptureFixture
):
    plugin("acme-a", "def twinkle_docter(): return 'a'", "twinkle_docter")
    with pytest.raises(RegistryError, match=r"There is no hook named 'twinkle_docter'\. Did you mean 'twinkle_doctor'?"):
        registry.hooks.call("twinkle_docter")
    assert "acme-a 1.0" in caplog.text


def test_hooks_work_without_specifications(make_registry, plugin):
    plugin("acme-a", "def twinkle_anything(value): return value", "twinkle_anything")
    assert make_registry().hooks.call("twinkle_anything", value=3) == [3]


def test_specifications_may_be_a_module(make_registry, plugin):
    specifications = ModuleType("specifications")
    exec("from twinkle.hookspecs import hookspec\n@hookspec\ndef twinkle_mine(value): pass", specifications.__dict__)
    plugin("acme-a", "def twinkle_mine(value): return value", "twinkle_mine")
    assert make_registry(hook_specifications=specifications).hooks.call("twinkle_mine", value=3) == [3]


HUB = "from pathlib import Path\nfrom twinkle_hub.local import FileHub\n"


@pytest.mark.parametrize("result", ["FileHub(Path('.'), scheme='acme')", "[FileHub(Path('.'), scheme='acme')]"])
def test_a_plugin_adds_a_hub(registry: Registry, plugin, result: str):
    plugin("acme-a", f"{HUB}def twinkle_register_hub(): return {result}", "twinkle_register_hub")
    assert set(registry.hubs) == {"acme", "file", "hf", "ms"}
    assert isinstance(registry.hubs.get("acme"), FileHub)


@pytest.mark.parametrize("result", ["FileHub(Path('.'), scheme='hf')", "3", "'hub'"])
def test_a_hub_that_can_not_be_added_costs_a_warning(registry: Registry, plugin, caplog: pytest.LogCaptureFixture, result: str):
    plugin("acme-a", f"{HUB}def twinkle_register_hub(): return [{result}]", "twinkle_register_hub")
    assert set(registry.hubs) == {"file", "hf", "ms"}
    assert "acme-a 1.0" in caplog.text


def test_any_plugin_can_deny_a_load(registry: Registry, plugin, importable):
    importable.install("acme-focal")
    plugin("acme-yes", "def twinkle_check_load(request): return None", "twinkle_check_load")
    text = "def twinkle_check_load(request): return 'no ' + request.kind if request.distribution == 'acme-focal 1.0' else None"
    plugin("acme-no", text, "twinkle_check_load")
    with pytest.raises(TrustError, match=r"'FocalLoss' may not be loaded: acme-no 1\.0 denies it: no loss"):
        registry.load("loss", "FocalLoss")
    assert "acme_focal" not in sys.modules
    assert registry.load("loss", "acme-yes/AcmeYes").__name__ == "AcmeYes"


def test_a_trust_error_that_a_check_raises_is_a_denial(registry: Registry, plugin, importable):
    importable.install("acme-focal")
    text = "from twinkle.errors import TrustError\ndef twinkle_check_load(request): raise TrustError('not here')"
    plugin("acme-no", text, "twinkle_check_load")
    with pytest.raises(TrustError, match=r"acme-no 1\.0 denies it: not here"):
        registry.load("loss", "FocalLoss")


@pytest.mark.parametrize("hooks", ["def twinkle_check_load(request): raise ValueError('broken')", "raise ValueError('broken')"])
def test_a_check_that_fails_lets_in_what_is_installed_and_no_stranger(
    registry: Registry, plugin, importable, trusted, write, hooks: str
):
    importable.install("acme-focal")
    plugin("acme-check", hooks, "twinkle_check_load")
    assert registry.load("loss", "FocalLoss").__name__ == "FocalLoss"
    folder = write("focal", **{"__init__.py": "raise RuntimeError('executed')"})
    with pytest.raises(TrustError, match=r"acme-check 1\.0 has to check it, and its check failed"):
        registry.load("loss", f"file://{folder}")


def test_a_thread_waits_for_a_check_that_another_is_still_importing(registry: Registry, plugin, importable):
    importable.install("acme-focal")
    text = "import threading\nthreading.importing.set()\nthreading.go.wait(10)\ndef twinkle_check_load(request): return 'never'"
    plugin("acme-slow", text, "twinkle_check_load")
    importing, go = threading.Event(), threading.Event()
    threading.importing, threading.go = importing, go
    results: list[object] = []

    def load() -> None:
        try:
            results.append(registry.load("loss", "FocalLoss"))
        except TrustError as error:
            results.append(error)

    try:
        first, second = threading.Thread(target=load), threading.Thread(target=load)
        first.start()
        assert importing.wait(10)
        second.start()
        second.join(0.2)
        go.set()
        first.join(10)
        second.join(10)
    finally:
        del threading.importing, threading.go
    assert [type(result) for result in results] == [TrustError, TrustError]


def test_what_a_hook_module_loads_while_it_is_imported_does_not_wait_for_itself(registry: Registry, plugin, importable):
    importable.install("acme-focal")
    text = (
        "import sys\nfound = sys.registry_under_test.load('loss', 'FocalLoss')\n"
        "def twinkle_check_load(request): return 'later ones' if found else None"
    )
    plugin("acme-eager", text, "twinkle_check_load")
    sys.registry_under_test = registry
    try:
        with pytest.raises(TrustError, match="later ones"):
            registry.load("loss", "FocalLoss")
    finally:
        del sys.registry_under_test


def test_a_check_that_is_there_is_asked_at_each_load(registry: Registry, plugin, importable):
    importable.install("acme-focal")
    text = "calls = []\ndef twinkle_check_load(request):\n    calls.append(1)\n    return 'enough' if len(calls) > 2 else None"
    plugin("acme-count", text, "twinkle_check_load")
    for _ in range(2):
        registry.load("loss", "FocalLoss")
    with pytest.raises(TrustError, match="enough"):
        registry.load("loss", "FocalLoss")


def test_code_from_a_hub_is_checked_before_it_is_fetched_and_when_it_has_arrived(registry: Registry, plugin, trusted, write):
    text = "seen = []\ndef twinkle_check_load(request): seen.append((request.digest is not None, request.entry))"
    plugin("acme-check", text, "twinkle_check_load")
    manifest = (
        'schema = 1\nplugin = { name = "x", version = "1", api = ">=1" }\n'
        '[[component]]\nkind = "loss"\nname = "A"\nentry = "a:A"\n'
    )  # fmt: skip
    registry.load("loss", f"file://{write('focal', **{'twinkle.toml': manifest, 'a.py': 'class A: pass'})}")
    assert sys.modules["acme_check.hooks"].seen == [(False, None), (True, "a:A")]


def test_the_hook_for_loaded_components_is_given_the_component(registry: Registry, plugin, importable):
    importable.install("acme-focal")
    text = "seen = []\ndef twinkle_component_loaded(component, request): seen.append((component.__name__, request.kind))"
    plugin("acme-see", text, "twinkle_component_loaded")
    registry.load("loss", "FocalLoss")
    assert sys.modules["acme_see.hooks"].seen == [("FocalLoss", "loss")]


def test_every_hook_of_the_design_is_specified_and_documented():
    names = {name for name in vars(hookspecs) if name.startswith("twinkle_")}
    assert names == {
        "twinkle_register_hub", "twinkle_check_load", "twinkle_component_loaded", "twinkle_worker_start", "twinkle_run_start",
        "twinkle_step_end", "twinkle_run_end", "twinkle_checkpoint_save", "twinkle_add_cli", "twinkle_doctor",
    }  # fmt: skip
    assert all(vars(hookspecs)[name].__doc__ for name in names)
