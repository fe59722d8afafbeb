"""What every benchmark prints: a ratio with both sides, the machine, the versions and the spread.

Measures CPU time of this process, because the machines are shared; knows nothing of what is measured. Run a benchmark as a script
(``python benchmarks/encode.py``), then ``from report import …`` finds this module.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "transformers", "tokenizers", "tiktoken", "datasets", "peft", "numpy", "jinja2", "kernels")


@dataclass(frozen=True)
class Result:
    """One comparison.

    Attributes:
        ours, theirs: medians, in ``unit``.
        ours_spread, theirs_spread: lowest and highest, in ``unit``.
        ratio: ours to theirs.
        limit: what the ratio has to keep to: at most this where less is better (``s``), else at least this. None: just told.
    """

    name: str
    unit: str
    ours: float
    theirs: float
    ours_spread: tuple[float, float]
    theirs_spread: tuple[float, float]
    ratio: float
    limit: float | None
    passed: bool
    repeats: int


def machine() -> dict[str, Any]:
    """The machine and the versions that a number belongs to."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": versions,
    }


def cpu_times(fn: Callable[[], object], repeats: int, warmup: int = 1) -> list[float]:
    """CPU seconds (user and system, all threads of this process) of each of ``repeats`` calls, after ``warmup`` unmeasured ones."""
    for _ in range(warmup):
        fn()
    times = []
    for _ in range(repeats):
        began = time.process_time()
        fn()
        times.append(time.process_time() - began)
    return times


def compare(name: str, ours: Sequence[float], theirs: Sequence[float], limit: float | None = None, unit: str = "s") -> Result:
    """Compare two sides by their medians.

    With ``unit="s"`` less is better and the ratio has to be at most ``limit``; with any other unit (as ``"rows/s"``) more is better
    and it has to be at least ``limit``.
    """
    ratio = statistics.median(ours) / statistics.median(theirs)
    kept = limit is None or (ratio <= limit if unit == "s" else ratio >= limit)
    return Result(
        name=name,
        unit=unit,
        ours=statistics.median(ours),
        theirs=statistics.median(theirs),
        ours_spread=(min(ours), max(ours)),
        theirs_spread=(min(theirs), max(theirs)),
        ratio=ratio,
        limit=limit,
        passed=kept,
        repeats=min(len(ours), len(theirs)),
    )


def print_results(results: Sequence[Result], as_json: bool = False) -> int:
    """Print results and the machine, as lines or as JSON. Returns the exit status: 1 where a limit isn't kept."""
    here = machine()
    if as_json:
        print(json.dumps({"machine": here, "results": [asdict(result) for result in results]}, indent=2))
    else:
        for result in results:
            print(_line(result))
        versions = ", ".join(f"{name} {version}" for name, version in here["versions"].items())
        print(f"{here['cpu']}, {here['cores']} cores, load {here['load']}, {here['system']}, Python {here['python']}, {versions}")
    return 0 if all(result.passed for result in results) else 1


def _line(result: Result) -> str:
    verdict = ""
    if result.limit is not None:
        sign = "≤" if result.unit == "s" else "≥"
        verdict = f"  limit {sign} {result.limit:g}: {'kept' if result.passed else 'NOT KEPT'}"
    sides = " · ".join(
        f"{side} {_number(middle)} {result.unit} ({_number(low)}–{_number(high)})"
        for side, middle, (low, high) in (
            ("ours", result.ours, result.ours_spread),
            ("theirs", result.theirs, result.theirs_spread),
        )
    )
    return f"{result.name}: ratio {result.ratio:.2f}{verdict}\n    {sides} · CPU time, median of {result.repeats}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
