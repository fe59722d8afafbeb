"""The manifest agrees with the code, and the README's snippet runs."""

import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest

import twinkle_plugin_metrics
from twinkle.component import load_component
from twinkle.kinds import get_kind
from twinkle_registry.manifest import load_manifest

PACKAGE = Path(twinkle_plugin_metrics.__file__).parent
MANIFEST = load_manifest(PACKAGE / "twinkle.toml")
README = Path(__file__).parents[1] / "README.md"


@pytest.mark.parametrize("row", MANIFEST.component, ids=lambda row: row.name)
def test_an_entry_leads_to_a_class_of_its_kind_and_name(row):
    module, _, attribute = row.entry.partition(":")
    found = getattr(import_module(f"twinkle_plugin_metrics.{module}"), attribute)
    assert issubclass(found, get_kind(row.kind).base_class())
    assert found.__name__ == row.name


@pytest.mark.parametrize("row", MANIFEST.component, ids=lambda row: row.name)
def test_declared_options_are_the_signatures(row):
    signature = inspect.signature(load_component(row.kind, f"twinkle-plugin-metrics/{row.name}"))
    declared = {name: field.default for name, field in row.config.items()}
    given_by_models = {"device_mesh", "gather", "clock"}  # objects, not configuration
    assert declared == {}
    assert set(signature.parameters) <= given_by_models


def test_the_readmes_snippet_runs():
    [snippet] = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    exec(compile(snippet, str(README), "exec"), {})
