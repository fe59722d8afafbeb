"""Asking a person at the terminal whether code from a hub may be loaded.

``terminal_asker`` gives the asker where there is a person to ask, else ``None``; ``ask`` shows what a static look at the files
found and takes one of three answers. Nothing of the repository is executed for it. Leans on rich; writes to standard error, so that
a program's own output stays its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from twinkle.cli.text import visible
from twinkle_hub.settings import is_set

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rich.console import Console

    from twinkle_registry.inspection import Inspection
    from twinkle_registry.trust import Answer

_SHOWN = 20
"""How many files and findings are shown; ``twinkle hub info`` shows all."""

_NOBODY = ("CI", "RANK", "LOCAL_RANK", "RAY_JOB_ID")
"""Set where there is a terminal, maybe, but nobody in particular at it: builds, and one of many workers."""


def terminal_asker(environment: Mapping[str, str] | None = None) -> Callable[[Inspection], Answer] | None:
    """``ask`` where a person is at the terminal; ``None`` in scripts, builds and workers."""
    env = os.environ if environment is None else environment
    if any(name in env and (name != "CI" or is_set(env[name])) for name in _NOBODY):
        return None
    return ask if _at_terminal() else None


def ask(inspection: Inspection) -> Answer:
    """Show ``inspection`` on standard error, and return what the person at standard input answers; no answer is a no."""
    if not _at_terminal():  # a forked worker has its parent's asker, but not its terminal
        return "no"
    from rich.console import Console

    console = Console(stderr=True, highlight=False, markup=False)
    show(inspection, console)
    owner = f"everything of kind {inspection.kind} from {inspection.owner}, now and later"
    choices: dict[str, Answer] = {"d": "digest", "n": "no"}
    console.print("\nMay it be loaded?")
    console.print("  d  yes, exactly these files, and no others")
    if inspection.owner is not None:
        choices["o"] = "owner"
        console.print(f"  o  yes, and {visible(owner)}")
    console.print("  n  no")
    while True:
        console.print(f"[{'/'.join(sorted(choices))}] ", end="")
        console.file.flush()
        try:
            line = sys.stdin.readline()
        except KeyboardInterrupt:
            console.print()
            return "no"
        word = line.strip().lower()
        for answer in choices.values():
            if word in (answer[0], answer):
                return answer
        if not line or word == "":  # the end of the input, or nothing: no is what is safe
            return "no"


def show(inspection: Inspection, console: Console) -> None:
    """Print what is known of a repository: whose it is, its files, what it needs and what the scan found."""
    console.print(
        f"{visible(inspection.reference)} is code from a hub, and nothing says yet whether it may run here.\n", style="bold"
    )
    rows = {
        "owner": inspection.owner or "unknown",
        "repository": inspection.repository,
        "revision": inspection.revision or "(the default)",
        "commit": inspection.commit or "unknown",
        "digest": f"sha256:{inspection.digest}",
        "kind": inspection.kind or "unknown",
        "plugin": " ".join(inspection.plugin[key] for key in ("name", "version") if key in inspection.plugin) or "no manifest",
        "needs": ", ".join(inspection.needs) or "nothing declared",
    }
    for name, value in rows.items():
        console.print(f"  {name:<11}{visible(value)}", soft_wrap=True)
    total = sum(size for _, size in inspection.files)
    console.print(f"\n  {len(inspection.files)} files, {total:,} bytes:")
    _list(console, (f"{size:>10,}  {path}" for path, size in inspection.files), len(inspection.files))
    if inspection.problem:
        console.print(f"\n  its manifest can't be read: {visible(inspection.problem)}", soft_wrap=True)
    console.print(f"\n  A static scan found {len(inspection.findings) or 'nothing'}{_can(inspection.capabilities)}")
    _list(console, (f"{row.file}:{row.line}: {row.message}" for row in inspection.findings), len(inspection.findings))
    console.print("  A scan is a lint: it proves nothing. Read what you don't know.")


def _at_terminal() -> bool:
    try:
        return sys.stdin.isatty() and sys.stderr.isatty()
    except (AttributeError, ValueError):  # no standard input at all, or a closed one
        return False


def _can(capabilities: Iterable[str]) -> str:
    names = ", ".join(capabilities)
    return f" ({names}):" if names else "."


def _list(console: Console, lines: Iterable[str], count: int) -> None:
    for number, line in enumerate(lines):
        if number == _SHOWN:
            console.print(f"    … and {count - _SHOWN} more: twinkle hub info shows all")
            break
        console.print(f"    {visible(line)}", soft_wrap=True)
