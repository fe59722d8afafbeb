"""Whether what a checkpoint was made of is what is here now: files, packages, plugins, hub components, models and data sets.

Asks no hub and executes no component: hub components and repositories are looked for in the caches of this machine. Leans on
``twinkle.run_record`` for what a bill of materials holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from twinkle.checkpoint_index import verify_folder
from twinkle.errors import CheckpointError, TwinkleError
from twinkle.run_diff import Difference, diff_rows, diff_tables, name_of
from twinkle.run_record import OF_THE_MODEL, read_run
from twinkle.run_sources import Patterns, fingerprint, package_digest, package_versions

_PROGRESS = frozenset({"steps"})


def verify_run(folder: Path) -> list[Difference]:
    """What differs between the time when the checkpoint in ``folder`` was written (before) and now, on this machine (after).

    Data in memory, and code that was given directly by a script, can't be looked at again; the script's own digest stands for it.

    Raises:
        CheckpointError: it has no bill of materials that can be read.
    """
    record = read_run(folder)
    return [*_files(folder), *_packages(record), *_components(record), *_repositories(record)]


def check_resume(folder: Path, now: Mapping[str, Any]) -> None:
    """Check that a run that goes on from ``folder`` is the same: what is here, its model, and the components of its training.

    Args:
        now: the bill of materials of the run that goes on.

    Raises:
        CheckpointError: something differs; says what, and how to go on nevertheless.
    """
    record = read_run(folder)
    model, mine = ({key: value for key, value in run["model"].items() if key not in _PROGRESS} for run in (record, now))
    theirs, ours = ([row for row in run["components"] if row["kind"] in OF_THE_MODEL] for run in (record, now))
    found = [*verify_run(folder), *diff_tables("model", model, mine), *diff_rows(theirs, ours)]
    if found:
        raise CheckpointError(
            f"This run isn't the one that {folder} was written by: {'; '.join(dict.fromkeys(map(str, found)))}. "
            f"To go on nevertheless, resume without verify."
        )


def _files(folder: Path) -> Iterator[Difference]:
    try:
        verify_folder(folder)
    except CheckpointError as error:
        yield Difference("files", "whole", str(error))


def _packages(record: Mapping[str, Any]) -> Iterator[Difference]:
    recorded = record["packages"]
    yield from diff_tables("package", recorded, package_versions(name for name in recorded if name != "python"))


def _components(record: Mapping[str, Any]) -> Iterator[Difference]:
    from twinkle.component import default_registry

    locations = {row.distribution: Path(row.location) for row in default_registry().plugins()}
    for row in record["components"]:
        source, subject = row["source"], f"{row['kind']} {name_of(row)}"
        if "digest" in source:
            yield from _stored(subject, source["digest"])
        elif "code" in source and source["distribution"] in locations:  # one that is gone is missing among the packages
            code = package_digest(locations[source["distribution"]])
            if code != source["code"]:
                yield Difference(f"{subject} code", source["code"], code)


def _stored(subject: str, digest: str) -> Iterator[Difference]:
    from twinkle_hub.settings import Settings
    from twinkle_registry.store import ComponentStore

    try:
        ComponentStore(Settings.from_environment().home).read(digest.removeprefix("sha256:"))
    except TwinkleError as error:
        yield Difference(subject, digest, str(error))


def _repositories(record: Mapping[str, Any]) -> Iterator[Difference]:
    for row in record["repositories"]:
        if "digest" not in row:  # in memory
            continue
        subject = f"{row['kind']} {row['reference']}"
        try:
            path = _here(row)
            now = fingerprint(path, _patterns(row)) if path.exists() else None
        except (TwinkleError, OSError) as error:
            yield Difference(subject, row["commit"] or row["digest"], f"not on this machine: {error}")
            continue
        if now is None:
            yield Difference(subject, row["digest"], f"there is nothing at {path} (working folder: {Path.cwd()})")
        elif now["digest"] != row["digest"]:
            yield Difference(f"{subject} digest", row["digest"], now["digest"])


def _here(row: Mapping[str, Any]) -> Path:
    """Where the files of a repository lie on this machine; nothing is fetched."""
    from twinkle.component import default_registry
    from twinkle_hub.hubs import fetch, locate

    reference = str(row["reference"])
    if reference.startswith((".", "~", "/")):
        return Path(reference).expanduser()
    registry = default_registry()
    found = locate(reference, revision=row["revision"], mirror=registry.project.mirror)
    if isinstance(found, Path):
        return found
    if row["commit"] is not None:
        found = found.at(row["commit"])
    patterns = _patterns(row)
    return fetch(
        str(found),
        hubs=registry.hubs,
        repo_type=row["kind"],
        allow_patterns=patterns.allow,
        ignore_patterns=patterns.ignore,
        offline=True,
    )


def _patterns(row: Mapping[str, Any]) -> Patterns:
    given = row.get("patterns") or {}
    return Patterns(*(None if given.get(key) is None else tuple(given[key]) for key in ("allow", "ignore")))
