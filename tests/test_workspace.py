"""The workspace itself: what every new distribution has to be added to, and the two commands."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
SETTINGS = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())


def test_every_distribution_is_a_member_and_a_source_of_the_uv_workspace(distributions: list[Path]):
    uv = SETTINGS["tool"]["uv"]
    members = {folder for pattern in uv["workspace"]["members"] for folder in CHECKOUT.glob(pattern)}
    assert members == set(distributions)
    names = {tomllib.loads((folder / "pyproject.toml").read_text())["project"]["name"] for folder in distributions}
    assert uv["sources"] == {name: {"workspace": True} for name in names}


def test_every_package_is_under_the_import_contract(distributions: list[Path]):
    packages = {path.parent.name for folder in distributions for path in folder.glob("src/*/__init__.py")}
    assert set(SETTINGS["tool"]["importlinter"]["root_packages"]) == packages


def test_every_distribution_has_a_readme_and_one_licence(distributions: list[Path]):
    assert "Apache License" in (CHECKOUT / "LICENSE").read_text()
    for folder in distributions:
        project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
        assert project["license"] == "Apache-2.0", folder.name
        assert (folder / project["readme"]).stat().st_size > 0, folder.name


@pytest.mark.parametrize("target", ["quickstart", "test", "lint", "bench", "docs", "clean"])
def test_make_has_the_target(target: str):
    done = subprocess.run(["make", "--dry-run", target], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_continuous_integration_runs_make_test():
    script = CHECKOUT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert re.search(r"^(exec )?make test$", script.read_text(), re.MULTILINE)


def test_constraints_pin_exact_versions_and_what_the_distributions_ask_for(distributions: list[Path]):
    lines = [line for line in (CHECKOUT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    pinned = {re.fullmatch(r"([\w.-]+)(\[\w+\])?==[\w.+!]+", line)[1].lower().replace("_", "-") for line in lines}
    for folder in distributions:
        project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
        for requirement in project["dependencies"]:
            name = re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-")
            assert name.startswith("twinkle-") or name in pinned, f"{folder.name} needs {name}, which constraints.txt doesn't pin"
