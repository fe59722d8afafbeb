"""What starting costs: the command, the import, and finding a thousand plugins.

Run it with the environment's Python: ``python benchmarks/startup.py [--repeats N] [--json]``. Sides take turns within one run.
Everything is measured in child processes, by CPU time: whole ones as the kernel accounts it, listings as the child itself reports.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from report import Result, compare, print_results

COMMAND = Path(sys.executable).parent / "twinkle"
BARE = [sys.executable, "-c", "pass"]
VERSION_LIMIT = 3.5  # times a bare interpreter
LISTING_BUDGET = 0.002  # seconds, warm
PLUGINS = 1000
GROUP = "twinkle.plugins"
UNWANTED = ("torch", "transformers", "datasets", "ray", "pydantic", "typer", "rich")

_OURS = "twinkle_registry.registry.Registry().plugins()"
LISTING_WAYS = {
    "ours": f"import twinkle_registry.registry; found = len({_OURS})",
    "ours, a second time": f"import twinkle_registry.registry; {_OURS}; found = len({_OURS})",
    "importlib.metadata": f"import importlib.metadata; found = len(importlib.metadata.entry_points(group={GROUP!r}))",
    # It lists the names and loads none of them; what it knows comes from the cache file that it keeps.
    "stevedore": f"import stevedore.named; found = len(stevedore.named.NamedExtensionManager({GROUP!r}, []).list_entry_points())",
}

MANIFEST = """schema = 1
[plugin]
name = "synthetic-{index:04}"
version = "1.0.0"
api = ">=1,<2"
requires = ["torch>=2.6"]
license = "Apache-2.0"
summary = "A synthetic plugin"
[[component]]
kind = "loss"
name = "Loss{index:04}"
entry = "loss:Loss{index:04}"
pure = true
config.gamma = {{ type = "float", default = 2.0, min = 0, doc = "focusing strength" }}
"""


def child_cpu_time(command: Sequence[str]) -> float:
    """CPU seconds (user and system) of one run of ``command``, whose output is thrown away."""
    silent = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    child = os.posix_spawn(command[0], list(command), os.environ, file_actions=silent)
    _, status, usage = os.wait4(child, 0)
    if code := os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{' '.join(command)} exited with {code}")
    return usage.ru_utime + usage.ru_stime


def taking_turns(sides: Sequence[Callable[[], float]], repeats: int) -> list[list[float]]:
    """``repeats`` measurements of each side, one after the other in turn, after one of each that is thrown away."""
    rounds = [[side() for side in sides] for _ in range(repeats + 1)]
    return [list(column) for column in zip(*rounds[1:], strict=True)]


def start_up(repeats: int) -> list[Result]:
    """``twinkle --version`` and ``import twinkle`` against an interpreter that does nothing."""
    commands = [[str(COMMAND), "--version"], [sys.executable, "-c", "import twinkle"], BARE]
    version, imported, bare = taking_turns([lambda command=command: child_cpu_time(command) for command in commands], repeats)
    return [
        compare("twinkle --version, against python -c pass", version, bare, VERSION_LIMIT),
        compare("import twinkle, against python -c pass", imported, bare, VERSION_LIMIT),
    ]


def check_import() -> None:
    """Stop where ``import twinkle`` loads what it mustn't."""
    program = (
        "import sys, twinkle\n"
        f"found = [name for name in sys.modules if name.partition('.')[0] in {UNWANTED!r} or name.startswith('twinkle_plugin')]\n"
        "sys.exit(bool(found))"
    )
    child_cpu_time([sys.executable, "-c", program])


def make_plugins(folder: Path) -> None:
    """A thousand installed distributions, each a plugin with one component."""
    for index in range(PLUGINS):
        package = folder / f"synthetic_{index:04}"
        package.mkdir()
        (package / "__init__.py").write_text("raise ImportError('a listing imports no plugin')\n")
        (package / "twinkle.toml").write_text(MANIFEST.format(index=index))
        metadata = folder / f"synthetic_{index:04}-1.0.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.4\nName: synthetic-{index:04}\nVersion: 1.0.0\n")
        (metadata / "entry_points.txt").write_text(f"[{GROUP}]\nsynthetic{index:04} = synthetic_{index:04}\n")
    time.sleep(0.2)  # files as young as the clock's tick aren't remembered


def child_reported_time(program: str, environment: dict[str, str]) -> float:
    """CPU seconds of ``found = …`` in a new process, after its imports; it has to find every plugin."""
    before, _, call = program.rpartition("; ")
    timed = f"import time; {before}\nbegan = time.process_time()\n{call}\nprint(time.process_time() - began, found)"
    done = subprocess.run([sys.executable, "-c", timed], capture_output=True, text=True, check=True, env=environment)
    seconds, found = done.stdout.split()
    if int(found) < PLUGINS:
        raise SystemExit(f"{call} found {found} of {PLUGINS} plugins")
    return float(seconds)


def listing(repeats: int) -> list[Result]:
    """A thousand plugins on ``sys.path``, each time in a new process with caches warm.

    Ours, manifests and all, against the budget, and against two ways to find the entry points alone.
    """
    ways = dict(LISTING_WAYS)
    if importlib.util.find_spec("stevedore") is None:
        del ways["stevedore"]
    with tempfile.TemporaryDirectory() as temporary:
        site, home = Path(temporary) / "site", Path(temporary) / "home"
        site.mkdir()
        make_plugins(site)
        path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "PYTHONPATH": path, "TWINKLE_HOME": str(home), "XDG_CACHE_HOME": str(home)}
        sides = [lambda program=program: child_reported_time(program, environment) for program in ways.values()]
        ours, again, *others = taking_turns(sides, repeats)
    budget = [LISTING_BUDGET] * repeats
    results = [
        compare(f"listing {PLUGINS} plugins in a new process, against a budget of 2 ms", ours, budget, 1.0),
        compare(f"listing {PLUGINS} plugins a second time, against a budget of 2 ms", again, budget, 1.0),
    ]
    for name, theirs in zip(list(ways)[2:], others, strict=True):
        results.append(
            compare(f"listing {PLUGINS} plugins in a new process, against the entry points alone by {name}", ours, theirs, 1.0)
        )
    return results


def main() -> int:
    """Measure and print; 1 where a limit isn't kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    check_import()
    return print_results(start_up(arguments.repeats) + listing(arguments.repeats), arguments.json)


if __name__ == "__main__":
    sys.exit(main())
