"""The manifest says what the code does."""

import importlib
import inspect
import tomllib
from importlib.resources import files

import pytest

from twinkle.kinds import get_kind

MANIFEST = tomllib.loads((files("twinkle_plugin_templates") / "twinkle.toml").read_text())


@pytest.mark.parametrize("component", MANIFEST["component"], ids=lambda component: component["name"])
def test_entry_kind_and_configuration_are_those_of_the_class(component):
    module, _, attribute = component["entry"].partition(":")
    found = getattr(importlib.import_module(f"twinkle_plugin_templates.{module}"), attribute)
    assert found.__name__ == component["name"]
    assert issubclass(found, get_kind(component["kind"]).base_class())
    parameters = inspect.signature(found).parameters
    for name, option in component.get("config", {}).items():
        assert name in parameters
        if "default" in option:
            assert parameters[name].default == option["default"]


def test_a_template_is_found_by_its_name():
    from twinkle.component import load_component
    from twinkle_plugin_templates.template import Template

    assert load_component("template", "Template") is Template


def test_a_template_is_made_by_its_name_with_a_tokenizer_or_a_folder(tokenizer, tokenizer_folder):
    from twinkle.component import make_component

    row = {"messages": [{"role": "user", "content": "Hi"}]}
    ours = make_component("template", "Template", tokenizer=tokenizer, max_length=None).encode(row)
    assert make_component("template", "Template", model_id=str(tokenizer_folder)).encode(row)["length"] == ours["length"]
