"""``twinkle hub gc``: remove from the store of hub components what nothing needs any more.

Kept is what the project's lock pins, what the user allowed by digest, what ``--keep`` names, and what a process uses now.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from twinkle.errors import ConfigError

if TYPE_CHECKING:
    from twinkle_registry.collection import Collected

_DAY_S = 24 * 3600.0
_DIGEST = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_RECORDS = ("twinkle.lock", "twinkle_run.json")
"""The files in which digests are written down."""


def gc(
    older_than: Annotated[
        float, typer.Option("--older-than", metavar="DAYS", min=0, help="Keep what was used in this many days.")
    ] = 30,
    keep_locked: Annotated[
        bool, typer.Option(help="Keep what this project's twinkle.lock pins and what you allowed by digest.")
    ] = True,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            "--keep",
            metavar="WHAT",
            help="Keep what this needs: the folder of a checkpoint or a project, a record of one, or a digest. May be repeated.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Remove components from the store that nothing needs: not pinned, not allowed by digest, not used lately, not in use."""
    from twinkle_hub.settings import Settings
    from twinkle_registry.collection import collect

    home = Settings.from_environment().home
    needed = {digest for what in keep or () for digest in _digests_of(what)}
    if keep_locked:
        needed |= _pinned() | _allowed(home)
    collected = collect(home, needed, older_than_s=older_than * _DAY_S, dry_run=dry_run)
    if as_json:
        typer.echo(json.dumps({"dry_run": dry_run, **collected.as_dict()}, indent=2))
    else:
        _show(collected, dry_run)


def _pinned() -> set[str]:
    from twinkle.component import default_registry
    from twinkle_registry.lock import find_lock

    return {entry.digest for entry in find_lock(default_registry().project, Path.cwd()).components}


def _allowed(home: Path) -> set[str]:
    from twinkle_registry.trust_store import TrustStore

    digests = (digest for rule in TrustStore(home).rules().allow for digest in rule.digest or ())
    return {digest.removeprefix("sha256:") for digest in digests}


def _digests_of(what: str) -> set[str]:
    """The digests that ``what`` names: itself, or all that are written in its records."""
    if _DIGEST.fullmatch(digest := what.removeprefix("sha256:").lower()):
        return {digest}
    path = Path(what)
    files = [file for name in _RECORDS if (file := path / name).is_file()] if path.is_dir() else [path]
    try:
        found = {digest for file in files for digest in _DIGEST.findall(file.read_text(encoding="utf-8"))}
    except (OSError, ValueError) as error:
        raise ConfigError(f"--keep {what}: it can't be read: {error}. Nothing was removed.") from error
    if not files:
        raise ConfigError(f"--keep {what}: the folder has neither {' nor '.join(_RECORDS)}. Nothing was removed.")
    return found


def _show(collected: Collected, dry_run: bool) -> None:
    for digest in collected.removed:
        typer.echo(f"{'would remove' if dry_run else 'removed'} sha256:{digest}")
    for kept in collected.kept:
        typer.echo(f"kept sha256:{kept.digest} ({kept.why})")
    verb = "Would remove" if dry_run else "Removed"
    left = f" and {collected.leftovers} left over from processes that were killed" if collected.leftovers else ""
    typer.echo(f"{verb} {len(collected.removed)} component(s){left}, {collected.bytes:,} bytes; kept {len(collected.kept)}.")
