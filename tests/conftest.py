"""Fixtures of the tests that cross distributions: the checkout, wheels of it, environments to install them into, hubs."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from twinkle_hub.testing import HfServer, MsServer

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


@dataclass(frozen=True)
class HubWorld:
    """Two hubs on this machine that only this test knows, a project, and an empty Twinkle's folder.

    Attributes:
        hf: speaks Hugging Face's protocol.
        ms: speaks ModelScope's.
        project: the folder in which programs run.
        home: Twinkle's folder.
        canary: a file that code from the hubs makes when it is executed.
    """

    hf: HfServer
    ms: MsServer
    project: Path
    home: Path
    canary: Path

    @property
    def variables(self) -> dict[str, str]:
        """The environment of programs in this world. Nothing from outside speaks for code from hubs in it."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("TWINKLE_", "HF_", "MODELSCOPE_"))}
        caches = self.home.parent
        return {
            **kept,
            "TWINKLE_HOME": str(self.home),
            "TWINKLE_POLICY": "",
            "HF_ENDPOINT": self.hf.endpoint,
            "HF_HOME": str(caches / "hf"),
            "MODELSCOPE_ENDPOINT": self.ms.endpoint,
            "MODELSCOPE_CACHE": str(caches / "ms"),
            "MODELSCOPE_HOME": str(caches / "ms-home"),
            "OMP_NUM_THREADS": "1",
            "NO_COLOR": "1",
            "COLUMNS": "240",
        }

    def python(self, code: str, *arguments: str, check: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run ``code`` in a process of its own, in the project's folder, and return what it printed."""
        command = [sys.executable, "-c", code, *arguments]
        environment = {**self.variables, **variables}
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, cwd=self.project, check=False, stdin=subprocess.DEVNULL
        )
        if check and done.returncode:
            pytest.fail(f"{code}\n{arguments} exited with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done

    def twinkle(self, *arguments: str, check: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run ``twinkle`` with ``arguments``."""
        return self.python("from twinkle.cli import main; main()", *arguments, check=check, **variables)

    def project_file(self, **tables: dict[str, str]) -> None:
        """Write the project's ``twinkle.toml``: ``alias={...}``, ``mirror={...}``."""
        lines = ["schema = 1"]
        for table, rows in tables.items():
            lines += [f"[{table}]", *(f"{json.dumps(key)} = {json.dumps(value)}" for key, value in rows.items())]
        (self.project / "twinkle.toml").write_text("\n".join(lines) + "\n")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[HubWorld]:
    """A world of its own, whose programs reach nothing outside it."""
    project = tmp_path / "project"
    project.mkdir()
    with HfServer(token="sekret-of-the-test") as hf, MsServer(token="sekret-of-the-test") as ms:
        world = HubWorld(hf, ms, project, tmp_path / "home", tmp_path / "canary")
        world.project_file()
        yield world
