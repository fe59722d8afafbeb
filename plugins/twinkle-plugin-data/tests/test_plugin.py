"""The plugin as others see it: its manifest says what its classes take, and reading it imports nothing heavy."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import twinkle_plugin_data
from twinkle.kinds import get_kind
from twinkle_registry.manifest import load_manifest

MANIFEST = load_manifest(Path(twinkle_plugin_data.__file__).parent / "twinkle.toml")


@pytest.mark.parametrize("component", MANIFEST.component, ids=lambda component: component.name)
def test_the_manifest_says_what_the_class_takes(component):
    module, _, name = component.entry.partition(":")
    found = getattr(importlib.import_module(f"twinkle_plugin_data.{module}"), name)
    assert issubclass(found, get_kind(component.kind).base_class())
    parameters = inspect.signature(found).parameters
    named = {name: row for name, row in parameters.items() if row.kind is not inspect.Parameter.VAR_KEYWORD}
    assert set(component.config) == set(named)
    for name, field in component.config.items():
        default = named[name].default
        if default not in (inspect.Parameter.empty, None, ()):
            assert field.default == default


def test_the_version_is_the_packages():
    from importlib.metadata import version

    assert MANIFEST.plugin.version == version("twinkle-plugin-data")


def test_preprocessors_and_filters_import_neither_torch_nor_datasets_nor_numpy():
    pure = sorted({component.entry.partition(":")[0] for component in MANIFEST.component if component.pure})
    code = (
        f"import importlib, sys; [importlib.import_module('twinkle_plugin_data.' + name) for name in {pure}]; "
        "print(sorted({'torch', 'datasets', 'numpy', 'pyarrow', 'transformers'} & set(sys.modules)))"
    )
    assert pure == ["filters", "preprocessors"]
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_torch_and_datasets_are_imported_when_they_are_needed():
    code = (
        "import sys, twinkle_plugin_data.dataset, twinkle_plugin_data.lazy, twinkle_plugin_data.dataloader; "
        "print(sorted({'torch', 'datasets', 'pyarrow', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_readmes_example_runs():
    readme = Path(__file__).parents[1] / "README.md"
    (example,) = re.findall(r"```python\n(.*?)```", readme.read_text(encoding="utf-8"), re.DOTALL)
    names: dict = {}
    exec(compile(example, str(readme), "exec"), names)
    assert names["state"]["consumed"] == len(names["dataset"])
