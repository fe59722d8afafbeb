"""Fixtures of the tests that cross distributions: the checkout, wheels of it, and environments to install them into."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Environment:
    """A virtual environment, driven from outside by this environment's pip."""

    folder: Path
    home: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def install(self, *arguments: str) -> None:
        self._pip("install", *arguments)

    def uninstall(self, distribution: str) -> None:
        self._pip("uninstall", "-y", distribution)

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program of this environment (``twinkle``, ``python``) and return what it printed."""
        variables = {**os.environ, "TWINKLE_HOME": str(self.home), "COLUMNS": "200", "NO_COLOR": "1"}
        variables.pop("PYTHONPATH", None)
        program = self.folder / "bin" / command[0]
        done = subprocess.run([program, *command[1:]], capture_output=True, text=True, env=variables, cwd=self.home, check=False)
        if check and done.returncode:
            pytest.fail(f"{' '.join(command)} exited with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done

    def plugins(self) -> dict[str, list[str]]:
        """The components that ``twinkle plugins list`` shows, by distribution."""
        listed = json.loads(self.run("twinkle", "plugins", "list", "--json").stdout)
        found: dict[str, list[str]] = {plugin["distribution"]: [] for plugin in listed["plugins"]}
        for row in listed["components"]:
            found[row["distribution"]].append(row["name"])
        return found

    def _pip(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(self.python), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.fail(f"pip {' '.join(arguments)} failed:\n{done.stdout}\n{done.stderr}")


def _new_environment(folder: Path) -> Environment:
    home = folder / "home"
    home.mkdir(parents=True)
    venv.create(folder / "env", with_pip=False)
    return Environment(folder / "env", home)


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The root of this checkout."""
    return CHECKOUT


@pytest.fixture(scope="session")
def distributions(checkout: Path) -> list[Path]:
    """The folder of every distribution in the workspace."""
    return [checkout / "hub", checkout / "registry", checkout / "twinkle_core", *sorted((checkout / "plugins").iterdir())]


@pytest.fixture(scope="session")
def build_wheel(tmp_path_factory: pytest.TempPathFactory):
    """Build the wheel of a project folder; returns the wheel's path."""

    def build(project: Path, into: Path | None = None) -> Path:
        target = into or tmp_path_factory.mktemp("wheel")
        before = set(target.iterdir())
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)]
        done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.fail(f"{project.name} doesn't build:\n{done.stdout}\n{done.stderr}")
        [wheel] = set(target.iterdir()) - before
        return wheel

    return build


@pytest.fixture(scope="session")
def wheels(distributions: list[Path], build_wheel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel of every distribution."""
    folder = tmp_path_factory.mktemp("wheels")
    for project in distributions:
        build_wheel(project, folder)
    return folder


@pytest.fixture
def clean_environment(tmp_path: Path) -> Environment:
    """An environment with nothing in it."""
    return _new_environment(tmp_path / "clean")


@pytest.fixture
def child_environment(tmp_path: Path) -> Environment:
    """An environment that has all that this one has, and into which more can be installed without touching this one."""
    environment = _new_environment(tmp_path / "child")
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(environment.folder)}))
    parent = sysconfig.get_path("purelib")
    (packages / "parent.pth").write_text(f"import site; site.addsitedir({parent!r})\n")
    script = environment.folder / "bin" / "twinkle"
    script.write_text(f"#!{environment.python}\nfrom twinkle.cli import main\nmain()\n")
    script.chmod(0o755)
    return environment
