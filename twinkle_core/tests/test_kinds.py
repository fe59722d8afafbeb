"""Every kind has a module to import from, a documented base class there, and needs no PyTorch."""

import importlib
import inspect
import subprocess
import sys

import pytest

from twinkle.errors import ConfigError
from twinkle.kinds import KINDS, get_kind


@pytest.mark.parametrize("name", KINDS)
def test_kind_has_a_documented_base_class_in_its_module(name: str):
    base = KINDS[name].base_class()
    assert inspect.isclass(base)
    assert inspect.getdoc(base)
    assert base.__name__ == KINDS[name].base


@pytest.mark.parametrize("name", KINDS)
def test_module_of_a_kind_answers_introspection_as_any_module_does(name: str):
    module = importlib.import_module(KINDS[name].module)
    assert not hasattr(module, "__wrapped__")
    assert not hasattr(module, "lowercase")
    assert KINDS[name].base in dir(module)


def test_base_classes_import_without_any_backend():
    program = (
        "import sys, importlib\n"
        "from twinkle.kinds import KINDS\n"
        "for kind in KINDS.values(): kind.base_class()\n"
        "print([name for name in ('torch', 'transformers', 'datasets', 'ray', 'numpy') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_unknown_kind_lists_the_kinds():
    with pytest.raises(ConfigError, match=r"'losss'.*loss, metric"):
        get_kind("losss")
