"""Every distribution builds, installs from a folder of wheels into a clean environment, and brings what it needs and no more."""

import tomllib
import zipfile
from pathlib import Path

import pytest


def test_core_alone_gives_base_classes_and_command_line_without_torch(clean_environment, wheels: Path, checkout: Path):
    clean_environment.install("-q", "-c", str(checkout / "constraints.txt"), "--find-links", str(wheels), "twinkle-core")
    shown = clean_environment.run(
        "python",
        "-c",
        "from twinkle.loss import Loss\n"
        "from twinkle.model import TwinkleModel\n"
        "from twinkle import DeviceMesh, get_logger, initialize\n"
        "import importlib.util\n"
        "print(importlib.util.find_spec('torch'), Loss.__name__)",
    )
    assert shown.stdout.split() == ["None", "Loss"]
    assert clean_environment.run("twinkle", "--version").stdout == "twinkle 0.1.0\n"
    assert clean_environment.plugins() == {}
    missing = clean_environment.run("twinkle", "quickstart", check=False)
    assert missing.returncode == 2
    assert "pip install 'twinkle-plugin-tiny[quickstart]'" in missing.stderr

    # The plugins' own requirements are PyTorch and more; without them the wheels still have to be listed, and say what is missing.
    clean_environment.install("-q", "--no-deps", *map(str, wheels.glob("twinkle_plugin_*.whl")))
    listed = clean_environment.plugins()
    assert {"Template", "TransformersModel", "CrossEntropyLoss"} <= {name for names in listed.values() for name in names}
    refused = clean_environment.run("python", "-c", "from twinkle.loss import CrossEntropyLoss", check=False)
    assert "torch" in refused.stderr
    assert "pip install" in refused.stderr


def test_every_wheel_holds_its_manifest_types_and_version(wheels: Path, distributions: list[Path]):
    by_name = {wheel.name.split("-")[0]: wheel for wheel in wheels.iterdir()}
    assert len(by_name) == len(distributions)
    for project in distributions:
        settings = tomllib.loads((project / "pyproject.toml").read_text())["project"]
        wheel = by_name[settings["name"].replace("-", "_")]
        assert f"-{settings['version']}-py3-none-any" in wheel.name
        names = zipfile.ZipFile(wheel).namelist()
        assert any(name.endswith("/py.typed") for name in names), wheel.name
        if "twinkle.plugins" in settings.get("entry-points", {}):
            assert any(name.endswith("/twinkle.toml") for name in names), wheel.name


@pytest.mark.slow
def test_everything_installs_from_wheels_and_trains(clean_environment, wheels: Path, checkout: Path, tmp_path: Path):
    constraints = str(checkout / "constraints.txt")
    clean_environment.install("-q", "-c", constraints, "--find-links", str(wheels), "twinkle-plugin-tiny[quickstart]")
    done = clean_environment.run("twinkle", "quickstart", "--output", str(tmp_path / "run"))
    assert "Who are you?" in done.stdout
