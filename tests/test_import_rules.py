"""What may import what, beyond the layers: a plugin imports another only where its pyproject.toml says so."""

import ast
import tomllib
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
PROJECTS = [CHECKOUT / "hub", CHECKOUT / "registry", CHECKOUT / "twinkle_core", *sorted((CHECKOUT / "plugins").iterdir())]
IMPORT_NAMES = {"twinkle-core": "twinkle"}


def _settings(project: Path) -> dict:
    return tomllib.loads((project / "pyproject.toml").read_text())["project"]


def _import_name(distribution: str) -> str:
    return IMPORT_NAMES.get(distribution, distribution.replace("-", "_"))


def _ours(module: str) -> str | None:
    top = module.split(".")[0]
    return top if top == "twinkle" or top.startswith("twinkle_") else None


def _imported(project: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in (project / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            found.update({top: path for name in names if (top := _ours(name))})
    return found


def _requirement_name(requirement: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else " " for letter in requirement).split()[0]


@pytest.mark.parametrize("project", PROJECTS, ids=lambda project: project.name)
def test_a_distribution_imports_only_what_it_declares(project: Path):
    settings = _settings(project)
    declared = list(settings["dependencies"])
    for extra in settings.get("optional-dependencies", {}).values():
        declared += extra
    allowed = {_import_name(_requirement_name(requirement)) for requirement in declared} | {_import_name(settings["name"])}
    if "twinkle" in allowed:
        allowed |= {"twinkle_registry", "twinkle_hub"}
    for module, path in _imported(project).items():
        assert module in allowed, f"{path.relative_to(CHECKOUT)} imports {module}, which {settings['name']} doesn't declare"


def test_distributions_depend_on_each_other_without_a_circle():
    needs = {}
    for project in PROJECTS:
        settings = _settings(project)
        names = {_requirement_name(requirement) for requirement in settings["dependencies"]}
        needs[settings["name"]] = {name for name in names if name.startswith("twinkle-")}
    while needs:
        ready = [name for name, others in needs.items() if not others & needs.keys()]
        assert ready, f"these depend on each other in a circle: {sorted(needs)}"
        for name in ready:
            del needs[name]
