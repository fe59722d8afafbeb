"""What loading a component from a hub costs, once it is in the cache: verified, authorized by the project's lock, imported.

Run it with the environment's Python: ``python benchmarks/load.py [--repeats N] [--json]``. Against budgets, and against the ways of
others to load code from a local folder: transformers' dynamic modules, and HF ``kernels`` where that is installed. Neither hashes
what it executes. Every side loads the same twelve files, each first load other ones; imports of the libraries are done before.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from report import Result, compare, print_results

FIRST_BUDGET = 0.001  # seconds, a component of twelve files that this process hasn't loaded
AGAIN_BUDGET = 5e-6  # seconds, one that it has
DIGEST_BUDGET = 0.010  # seconds, 200 files
CALLS = 2000  # in one measurement of a repeated load

MANIFEST = """schema = 1
[plugin]
name = "focal"
version = "1.0.0"
api = ">=1,<2"
license = "Apache-2.0"
summary = "A synthetic plugin"
[[component]]
kind = "loss"
name = "FocalLoss"
entry = "loss:FocalLoss"
pure = true
config.gamma = { type = "float", default = 2.0, min = 0, doc = "focusing strength" }
"""
LOSS = '''"""Number {number}."""

from .reduction import mean
from .settings import GAMMA, Settings
from .weights import weight


class FocalLoss:
    """Puts weight on what is hard."""

    def __init__(self, gamma: float = GAMMA) -> None:
        self.settings = Settings(gamma, {number})

    def __call__(self, logps: list[float]) -> float:
        return mean([-weight(logp, self.settings.gamma) * logp for logp in logps])
'''
SETTINGS = """GAMMA = 2.0


class Settings:
    def __init__(self, gamma: float, number: int) -> None:
        if gamma < 0:
            raise ValueError(f"gamma is at least 0, not {gamma}")
        self.gamma = gamma
        self.number = number
"""
REDUCTION = """def mean(values: list[float]) -> float:
    if not values:
        return 0.0
    return sum(values) / len(values)
"""
WEIGHTS = """import math


def weight(logp: float, gamma: float) -> float:
    return (1.0 - math.exp(logp)) ** gamma
"""


def make_component(folder: Path, number: int) -> Path:
    """Twelve files; ``metadata.json`` is what ``kernels`` asks for."""
    metadata = {"name": "focal", "id": f"focal_{number}", "version": 1, "license": "Apache-2.0", "python-depends": []}
    files = {
        "twinkle.toml": MANIFEST,
        "__init__.py": "from .loss import FocalLoss\n",
        "loss.py": LOSS.format(number=number),
        "settings.py": SETTINGS,
        "reduction.py": REDUCTION,
        "weights.py": WEIGHTS,
        "metadata.json": json.dumps({**metadata, "backend": {"type": "cpu"}}),
        "LICENSE": "Apache-2.0\n" * 200,
        **{f"table{index}.json": json.dumps(list(range(500))) for index in range(4)},
    }
    assert len(files) == 12
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def our_loads(work: Path, folders: list[Path]) -> list[Callable[[], type]]:
    """How we load each folder, which is in the store and in a lock."""
    from twinkle_registry.lock import LockedComponent, LockFile
    from twinkle_registry.project import find_project
    from twinkle_registry.registry import Registry
    from twinkle_registry.store import ComponentStore

    project = work / "project"
    project.mkdir()
    (project / "twinkle.toml").write_text("schema = 1\n")
    store = ComponentStore(work / "home")
    lock = LockFile.read(project / "twinkle.lock")
    for number, folder in enumerate(folders):
        pin = LockedComponent(f"hf://acme/focal{number}@v1", f"{number:040x}", store.add(folder), ("loss",))
        store.record_source(pin.digest, f"hf://acme/focal{number}", pin.commit)
        lock = lock.with_component(pin)
    lock.save()
    registry = Registry(project=find_project(project), home=work / "home")
    return [lambda number=number: registry.load("loss", f"hf://acme/focal{number}@v1") for number in range(len(folders))]


def transformers_loads(folders: list[Path]) -> list[Callable[[], type]]:
    """How transformers does, from its cache: another process has copied the files there."""
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    return [
        lambda folder=folder: get_class_from_dynamic_module("loss.FocalLoss", str(folder), trust_remote_code=True)
        for folder in folders
    ]


def kernel_repositories(work: Path, folders: list[Path]) -> list[Path]:
    """The same files where kernels looks for them."""
    for folder in folders:
        shutil.copytree(folder, work / "kernels" / folder.name / "build" / "torch-cpu")
    return [work / "kernels" / folder.name for folder in folders]


def kernels_loads(folders: list[Path]) -> list[Callable[[], object]]:
    """How HF kernels does, from a local repository."""
    from kernels import get_local_kernel

    return [lambda folder=folder: get_local_kernel(folder, backend="cpu", trust_remote_code=True) for folder in folders]


def first_times(loads: list[Callable[[], object]]) -> list[float]:
    """CPU seconds of each first load, after one that is thrown away."""
    times = []
    for load in loads:
        began = time.process_time()
        load()
        times.append(time.process_time() - began)
    return times[1:]


def repeated_times(load: Callable[[], object], repeats: int) -> list[float]:
    """CPU seconds of one of ``CALLS`` loads in a row."""
    times = []
    for _ in range(repeats):
        began = time.process_time()
        for _ in range(CALLS):
            load()
        times.append((time.process_time() - began) / CALLS)
    return times


def digest_times(folder: Path, repeats: int) -> list[float]:
    """CPU seconds of the digest of 200 files of 2 kB."""
    from report import cpu_times

    from twinkle_hub.digest import digest_of_folder

    for number in range(200):
        file = folder / f"folder{number % 10}" / f"file{number}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{number} " * 500)
    return cpu_times(lambda: digest_of_folder(folder), repeats)


def measure(work: Path, repeats: int) -> list[Result]:
    folders = [make_component(work / "repositories" / f"focal{number}", number) for number in range(repeats + 1)]
    loads = our_loads(work, folders)
    first, again = first_times(loads), repeated_times(loads[0], repeats)
    digests = digest_times(work / "many", repeats)
    what = "a 12-file component from the cache, verified"
    results = [
        compare(f"first load of {what}, against a budget of 1 ms", first, [FIRST_BUDGET] * repeats, 1.0),
        compare(f"repeated load of {what}, against a budget of 5 µs", again, [AGAIN_BUDGET] * repeats, 1.0),
        compare("digest of 200 files, against a budget of 10 ms", digests, [DIGEST_BUDGET] * repeats, 1.0),
    ]
    subprocess.run([sys.executable, __file__, "--prime", str(work / "repositories")], check=True, env=dict(os.environ))
    others = {"transformers' dynamic modules": transformers_loads(folders)}
    if importlib.util.find_spec("kernels"):
        others["HF kernels' local loading"] = kernels_loads(kernel_repositories(work, folders))
    else:
        print("HF kernels isn't installed, and is left out: pip install kernels", file=sys.stderr)
    for name, theirs in others.items():
        with contextlib.redirect_stdout(sys.stderr):
            their_first, their_again = first_times(theirs), repeated_times(theirs[0], min(repeats, 3))
        results += [
            compare(f"first load of {what}, against {name}, from a folder", first, their_first),
            compare(f"repeated load of {what}, against {name}", again, their_again),
        ]
    return results


def main() -> int:
    """Measure and print; 1 where a limit isn't kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--prime", type=Path, help=argparse.SUPPRESS)  # only load with transformers, which fills its cache
    arguments = parser.parse_args()
    if arguments.prime:
        for load in transformers_loads(sorted(arguments.prime.iterdir())):
            load()
        return 0
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["HF_MODULES_CACHE"] = f"{temporary}/modules"
        os.environ["HF_HUB_OFFLINE"] = "1"
        results = measure(Path(temporary), arguments.repeats)
    return print_results(results, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
