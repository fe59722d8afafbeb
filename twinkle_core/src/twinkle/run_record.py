"""The bill of materials: what a run is made of, collected while it runs and written beside every checkpoint.

``RunRecord`` belongs to the current runtime (``current_runtime().record``). ``twinkle.component`` tells it of components,
``twinkle.hub`` of models and data sets; a model's checkpoint writes it as ``twinkle_run.json``. The same run gives the same bytes:
there are no times in it, no environment and no secrets. Knows nothing of how a checkpoint is written; ``twinkle.run_diff`` and
``twinkle.run_verify`` read it.
"""

from __future__ import annotations

import functools
import json
import weakref
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twinkle.errors import CheckpointError
from twinkle.run_sources import (
    Patterns,
    code_source,
    fingerprint,
    installed_distributions,
    package_versions,
    plain_data,
    portable_path,
    script_source,
)

if TYPE_CHECKING:
    from twinkle.runtime import Runtime

RUN_FILE = "twinkle_run.json"
SCHEMA = 1

OF_THE_MODEL = frozenset({"loss", "processor", "metric", "optimizer", "lr_scheduler"})
"""Kinds that each model accounts for by itself: a checkpoint names those that its own adapter used, and no others."""

# They tell people of a run and change nothing in it, and their configuration is mostly addresses and keys.
_ONLOOKERS = frozenset({"notifier", "tracker", "runtime"})
_PACKAGES = ("twinkle-core", "twinkle-hub", "twinkle-registry", "torch", "transformers", "peft", "datasets", "numpy", "tokenizers")


@dataclass(frozen=True)
class UsedComponent:
    """A component that a run used.

    Attributes:
        kind: its kind.
        reference: how it was asked for; None where an instance, class or function was given.
        found: the class or function.
        config: its configuration as plain data; None where only the class was asked for.
    """

    kind: str
    reference: str | None
    found: Any
    config: Any = None

    def as_plain(self) -> dict[str, Any]:
        """As plain data, with where it came from."""
        source = code_source(self.found)
        if "digest" in source:
            source = {**_hub_source(source["digest"]), **source}
        return {"kind": self.kind, "reference": self.reference, "source": source, "config": self.config}


class RunRecord:
    """What one run used, in the order in which it was first used."""

    def __init__(self) -> None:
        self._used: dict[tuple[str, str, str], UsedComponent] = {}
        self._made: dict[int, tuple[weakref.ref[Any], UsedComponent]] = {}
        self._repositories: dict[str, dict[str, Any]] = {}

    def loaded(self, kind: str, reference: object, found: Any) -> None:
        """Take note of a component that was loaded: a class or function."""
        name = reference if isinstance(reference, str) else None
        key = (kind, name or _code_key(found), "")
        if key not in self._used:
            self._used[key] = UsedComponent(kind, name, found)

    def made(self, kind: str, reference: object, instance: Any, config: Mapping[str, Any]) -> None:
        """Take note of a component that was made, or given as an instance or function."""
        name = reference if isinstance(reference, str) else None
        found = _code_of(instance)
        given = name is None and not isinstance(reference, type) and found is type(instance)
        plain = {} if kind in _ONLOOKERS else plain_data(_attributes(instance) if given and not config else config)
        used = UsedComponent(kind, name, found, plain)
        self._used.setdefault((kind, name or _code_key(found), json.dumps(plain, sort_keys=True)), used)
        self._remember(instance, used)

    def _remember(self, instance: Any, used: UsedComponent) -> None:
        number, known = id(instance), self._made
        with suppress(TypeError):  # what can't be referred to weakly is described anew when it is asked for
            known[number] = (weakref.ref(instance, lambda _: known.pop(number, None)), used)

    def repository(
        self,
        kind: str,
        reference: str,
        path: Path | None,
        *,
        revision: str | None = None,
        commit: str | None = None,
        patterns: Patterns | None = None,
        **details: Any,
    ) -> None:
        """Take note of a model (``kind="model"``) or data set (``"dataset"``) that was fetched or opened at ``path``.

        ``patterns`` chose the files that were fetched. ``details`` say what of it was used (a split, a slice), and are added to
        those of an earlier note of the same.
        """
        is_local = path is not None and _is_local(reference)
        name = portable_path(path) if is_local and path is not None else reference
        details = {key: plain_data(value) for key, value in details.items() if value is not None}
        patterns = patterns or Patterns()
        key = json.dumps([kind, name, revision, patterns])
        if key not in self._repositories or not details:
            row: dict[str, Any] = {"kind": kind, "reference": name, "revision": revision, "commit": commit}
            if path is not None:
                row["commit"] = commit or (None if is_local else _commit_in(path))
                row.update(fingerprint(path, patterns))
            if patterns != Patterns():
                row["patterns"] = plain_data(patterns._asdict())
            self._repositories[key] = {**self._repositories.get(key, {}), **row}
        row = self._repositories[key]
        if details:
            uses = row.setdefault("uses", [])
            if details not in uses:
                uses.append(details)

    def describe(self, kind: str, instance: Any) -> UsedComponent:
        """What ``instance`` was made from; for one that nobody told of, its class."""
        known = self._made.get(id(instance))
        if known is not None and known[0]() is instance:
            return known[1]
        return UsedComponent(kind, None, _code_of(instance), plain_data(_attributes(instance)))

    def take_over(self, other: RunRecord, *, made: bool) -> None:
        """Go on from what ``other`` has noted: what was imported, and with ``made`` everything."""
        for key, used in other._used.items():
            if made or (used.config is None and used.reference is not None):
                self._used.setdefault(key, used)
        if made:
            for instance, used in list(other._made.values()):
                self._remember(instance(), used)
            self._repositories = {**other._repositories, **self._repositories}

    def as_plain(
        self,
        runtime: Runtime,
        *,
        model: Mapping[str, Any] | None = None,
        components: Iterable[tuple[str, Any]] = (),
    ) -> dict[str, Any]:
        """The whole bill of materials.

        Args:
            runtime: the runtime of the run.
            model: what the checkpoint is of: the model's class, adapter, precision, …
            components: kind and instance of the components that the model itself used; of their kinds (``OF_THE_MODEL``) no others
                are listed.
        """
        own = [self.describe(kind, instance) for kind, instance in components]
        others = [used for used in self._used.values() if used.kind not in OF_THE_MODEL]
        rows = _distinct([used.as_plain() for used in _without_imports([*own, *others])])
        distributions = [*installed_distributions(), *(row["source"].get("distribution", "") for row in rows)]
        settings = runtime.settings
        return {
            "schema": SCHEMA,
            "run": {
                "name": settings.name,
                "mode": settings.mode,
                "seed": settings.seed,
                "full_determinism": settings.full_determinism,
                "world_size": runtime.world_size,
                "device": runtime.device.partition(":")[0],
                "device_mesh": plain_data(runtime.device_mesh),
            },
            "script": script_source(),
            "model": plain_data(dict(model or {})),
            "components": rows,
            "repositories": list(self._repositories.values()),
            "packages": package_versions([*_PACKAGES, *distributions]),
        }

    def write(self, folder: Path, runtime: Runtime, **details: Any) -> Path:
        """Write ``twinkle_run.json`` into ``folder``; arguments as for ``as_plain``."""
        path = folder / RUN_FILE
        path.write_text(json.dumps(self.as_plain(runtime, **details), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return path


def record_component(
    kind: str, reference: object, found: Any, *, made: Any = None, config: Mapping[str, Any] | None = None
) -> None:
    """Note a component in the record of this process's run: one that was loaded, or with ``made`` one that was built."""
    from twinkle.runtime import current_record

    if made is None:
        current_record().loaded(kind, reference, found)
    else:
        current_record().made(kind, reference, made, config or {})


def record_repository(
    kind: str,
    reference: str,
    path: Path | None,
    *,
    revision: str | None = None,
    commit: str | None = None,
    patterns: Patterns | None = None,
    **details: Any,
) -> None:
    """Note a model or data set in the record of this process's run; see ``RunRecord.repository``."""
    from twinkle.runtime import current_record

    current_record().repository(kind, reference, path, revision=revision, commit=commit, patterns=patterns, **details)


def read_run(folder: Path) -> dict[str, Any]:
    """The bill of materials of a checkpoint.

    Raises:
        CheckpointError: there is none, or it can't be read.
    """
    path = folder / RUN_FILE
    if not path.is_file():
        if not folder.is_dir():
            raise CheckpointError(f"There is no checkpoint at {folder}.")
        raise CheckpointError(f"{folder} has no {RUN_FILE}: it wasn't written by Twinkle's save, or by that of an older version.")
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise CheckpointError(f"{path} has the layout {content['schema']}; this version reads {SCHEMA}.")
        if missing := {"run", "model", "components", "repositories", "packages"} - content.keys():
            raise CheckpointError(f"{path} isn't whole: it has no {', '.join(sorted(missing))}.")
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} can't be read: {error!r}") from error
    return content


def _code_of(instance: Any) -> Any:
    """The class or function whose code runs when ``instance`` is used."""
    found = instance.func if isinstance(instance, functools.partial) else instance
    return found if hasattr(found, "__qualname__") else type(found)


def _attributes(instance: Any) -> dict[str, Any]:
    """Public plain attributes of an instance: mostly what it was built with."""
    if not hasattr(instance, "__dict__") or hasattr(instance, "__qualname__"):
        return {}
    simple = (bool, int, float, str, list, tuple, dict, type(None))
    return {name: value for name, value in vars(instance).items() if not name.startswith("_") and isinstance(value, simple)}


def _code_key(found: Any) -> str:
    return f"{getattr(found, '__module__', '')}:{getattr(found, '__qualname__', '')}:{id(found)}"


def _without_imports(used: list[UsedComponent]) -> list[UsedComponent]:
    """Without those that were only imported by name, and also built."""
    built = {(row.kind, row.found) for row in used if row.config is not None}
    return [row for row in used if row.config is not None or (row.kind, row.found) not in built]


def _distinct(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({json.dumps(row, sort_keys=True): row for row in rows}.values())


def _hub_source(digest: str) -> dict[str, Any]:
    """Repository and commit of a component from a hub, as the registry knows them."""
    from twinkle.component import default_registry

    request = default_registry().provenance(digest.removeprefix("sha256:"))
    return {} if request is None else {"repository": request.repository, "commit": request.commit}


def _is_local(reference: str) -> bool:
    return "://" not in reference and Path(reference).expanduser().exists()


def _commit_in(path: Path) -> str | None:
    """The commit in a hub's cache folder: ``…/snapshots/<commit>``."""
    parts = path.parts
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts[:-1] else None
