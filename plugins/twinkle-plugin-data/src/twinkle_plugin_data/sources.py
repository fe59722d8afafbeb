"""From a ``DatasetMeta`` to rows: memory, a file, a folder or a hub's repository, and the slice of it that was asked for.

In a folder the split is found by the ``configs`` of its README.md where there are any (the Hugging Face convention), else by the
names of files and folders. Leans on ``twinkle.hub`` for anything that isn't local.
"""

from __future__ import annotations

import fnmatch
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from twinkle.dataset import DatasetMeta
from twinkle.errors import ConfigError, DataError
from twinkle.run_record import record_repository
from twinkle.run_sources import Patterns
from twinkle_plugin_data.files import READERS, read_file, rows_from_memory
from twinkle_plugin_data.rows import ArrowRows, Indices, Rows, SelectedRows, concatenated

_SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""The words by which files name their split (the convention of the ``datasets`` library)."""

_METADATA = {"dataset_info.json", "dataset_infos.json", "state.json", "dataset_dict.json", "configuration.json", "config.json"}
_DEFAULT_SUBSET = "default"
_HUB_OPTIONS = ("revision", "allow_patterns", "ignore_patterns")


def name_of_source(meta: DatasetMeta) -> str:
    """What messages call a data set."""
    return meta.dataset_id or "data in memory"


def open_rows(meta: DatasetMeta, **options: Any) -> Rows:
    """The rows that ``meta`` names; ``options`` (a revision, …) go to the hub.

    Raises:
        DataError: there is nothing that can be read, no such subset or split, or a slice of nothing; names the data set.
        ConfigError: an option that there isn't.
        HubError: the repository can't be had.
    """
    name = name_of_source(meta)
    wanted = None if meta.data_slice is None else _row_numbers(meta.data_slice)
    if meta.data is not None:
        rows = rows_from_memory(_of_split(meta.data() if callable(meta.data) else meta.data, meta), name=name)
        record_repository("dataset", name, None, rows=len(rows), **_chosen(meta, wanted))
    elif not meta.dataset_id:
        raise DataError("DatasetMeta needs a dataset_id (a hub reference, a file, a folder), or rows in data=.")
    else:
        path = _locate(meta.dataset_id, **options)
        rows = _open_path(path, meta)
        patterns = Patterns(*(None if options.get(name) is None else tuple(options[name]) for name in _HUB_OPTIONS[1:]))
        revision = options.get("revision")
        record_repository("dataset", meta.dataset_id, path, revision=revision, patterns=patterns, **_chosen(meta, wanted))
    return _sliced(rows, wanted, name)


def _chosen(meta: DatasetMeta, wanted: Indices | None) -> dict[str, Any]:
    """What of a source is used, for the run's bill of materials."""
    chosen: Any = meta.data_slice if isinstance(meta.data_slice, range) else None
    if wanted is not None and chosen is None:
        chosen = {"rows": len(wanted), "sha256": hashlib.sha256(wanted.tobytes()).hexdigest()}
    return {"subset": meta.subset_name, "split": meta.split, "slice": chosen}


def _sliced(rows: Rows, wanted: Indices | None, name: str) -> Rows:
    if wanted is None:
        return rows
    if len(wanted) and not len(rows):
        raise DataError(f"{name!r} has no rows to slice.")
    return SelectedRows(rows, wanted % max(len(rows), 1))


def _row_numbers(data_slice: Any) -> Indices:
    numbers = None if isinstance(data_slice, str) or not isinstance(data_slice, Iterable) else np.asarray(list(data_slice))
    if numbers is None or numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
        raise ConfigError(f"data_slice has to be row numbers, such as range(1000) or [0, 5, 7], not {data_slice!r:.60}.")
    return numbers.astype(np.int64)


def _of_split(data: Any, meta: DatasetMeta) -> Any:
    """The split of a ``datasets.DatasetDict``; anything else as it is."""
    if not isinstance(data, dict) or not data or not all(hasattr(split, "column_names") for split in data.values()):
        return data
    if meta.split not in data:
        raise _no_split(meta, list(data))
    return data[meta.split]


def _locate(dataset_id: str, **options: Any) -> Path:
    unknown = sorted(options.keys() - _HUB_OPTIONS)
    if unknown:
        raise ConfigError(f"A data set takes no {', '.join(unknown)}. Beside its DatasetMeta it takes {', '.join(_HUB_OPTIONS)}.")
    from twinkle.hub import download_dataset

    return download_dataset(dataset_id, **options)


def _open_path(path: Path, meta: DatasetMeta) -> Rows:
    if path.is_file():
        return read_file(path, name=meta.dataset_id)
    if not path.is_dir():
        raise DataError(f"There is no file or folder {path}.")
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return _open_saved(path, meta)
    files = _files_of_split(path, meta)
    parts = []
    for file in files:
        within = file.relative_to(path).as_posix()
        parts.append(read_file(file, name=meta.dataset_id if len(files) == 1 else f"{meta.dataset_id}/{within}"))
    return concatenated(parts)


def _open_saved(path: Path, meta: DatasetMeta) -> Rows:
    """What ``save_to_disk`` of the ``datasets`` library left."""
    import datasets

    try:
        saved = datasets.load_from_disk(str(path))
    except (ValueError, OSError, LookupError) as error:  # LookupError: a data set without rows, which leaves no file to load
        raise DataError(f"{path} can't be read as what save_to_disk leaves: {type(error).__name__}: {error}") from error
    return ArrowRows(_of_split(saved, meta), name=meta.dataset_id)


def _files_of_split(folder: Path, meta: DatasetMeta) -> list[Path]:
    files = [
        file
        for file in sorted(folder.rglob("*"))
        if file.is_file()
        and file.suffix.lower() in READERS
        and file.name not in _METADATA
        and not any(part.startswith((".", "__")) for part in file.relative_to(folder).parts)
    ]
    # A note beside data in another format is no data.
    files = [file for file in files if file.suffix != ".txt"] or files
    if not files:
        raise DataError(f"{meta.dataset_id!r} ({folder}) holds no data file. Suffixes that can be read: {', '.join(READERS)}.")
    declared = _declared_files(folder, files, meta)
    if declared is not None:
        return declared
    files = _files_of_subset(folder, files, meta)
    by_split = {split: [file for file in files if _names(file.relative_to(folder), words)] for split, words in _SPLITS.items()}
    if meta.split not in by_split:
        by_split[meta.split] = [file for file in files if _names(file.relative_to(folder), (meta.split,))]
    if by_split[meta.split]:
        return by_split[meta.split]
    if not any(by_split.values()) and meta.split == "train":
        return files
    raise _no_split(meta, [split for split, members in by_split.items() if members] or ["train"])


def _files_of_subset(folder: Path, files: list[Path], meta: DatasetMeta) -> list[Path]:
    if meta.subset_name in ("", _DEFAULT_SUBSET):
        return files
    chosen = [file for file in files if _names(file.relative_to(folder), (meta.subset_name,))]
    if not chosen:
        there = ", ".join(file.relative_to(folder).as_posix() for file in files[:8])
        raise DataError(
            f"{meta.dataset_id!r} has no subset {meta.subset_name!r}: no file or folder is named after it. There are: {there}."
        )
    return chosen


def _declared_files(folder: Path, files: list[Path], meta: DatasetMeta) -> list[Path] | None:
    """The files that the data set's card names for subset and split; None where it names none."""
    configs = _card_configs(folder / "README.md")
    if not configs:
        return None
    by_name = {config.get("config_name", _DEFAULT_SUBSET): config for config in configs}
    config = by_name.get(meta.subset_name)
    if config is None and meta.subset_name == _DEFAULT_SUBSET:
        config = next((config for config in configs if config.get("default")), configs[0] if len(configs) == 1 else None)
    if config is None:
        raise DataError(f"{meta.dataset_id!r} has no subset {meta.subset_name!r}. It has: {', '.join(map(str, by_name))}.")
    patterns = _patterns(config.get("data_files"))
    if patterns is None:
        return None
    if meta.split not in patterns:
        raise _no_split(meta, list(patterns))
    chosen = [file for file in files if any(_matches(file.relative_to(folder), pattern) for pattern in patterns[meta.split])]
    if not chosen:
        raise DataError(
            f"{meta.dataset_id!r}: its README.md names {patterns[meta.split]} for {meta.split!r}, and no file is like that."
        )
    return chosen


def _patterns(data_files: Any) -> dict[str, list[str]] | None:
    """Split to glob patterns, from any of the forms that a card may have."""
    if isinstance(data_files, str):
        return {"train": [data_files]}
    if not isinstance(data_files, list) or not data_files:
        return None
    if all(isinstance(entry, str) for entry in data_files):
        return {"train": data_files}
    paths = {entry["split"]: entry["path"] for entry in data_files}
    return {split: [path] if isinstance(path, str) else path for split, path in paths.items()}


def _card_configs(card: Path) -> list[dict[str, Any]]:
    if not card.is_file():
        return []
    import yaml  # type: ignore[import-untyped]  # PyYAML ships no types

    head = re.match(r"---\s*\n(.*?)\n---", card.read_text(encoding="utf-8-sig"), re.DOTALL)
    try:
        content = yaml.safe_load(head[1]) if head else None
    except yaml.YAMLError as error:
        raise DataError(f"The head of {card} is no valid YAML: {error}") from None
    configs = content.get("configs") if isinstance(content, dict) else None
    return [config for config in configs if isinstance(config, dict)] if isinstance(configs, list) else []


def _matches(file: Path, pattern: str) -> bool:
    return fnmatch.fnmatchcase(file.as_posix(), pattern.removeprefix("./").replace("**/", "*"))


def _names(file: Path, words: tuple[str, ...]) -> bool:
    """Whether the path has one of ``words`` by itself: ``data/train-00.jsonl``, ``train/a.jsonl``, not ``trains.jsonl``."""
    text = "/".join([*file.parts[:-1], file.stem])
    return any(re.search(rf"(?<![a-zA-Z]){re.escape(word)}(?![a-zA-Z])", text, re.IGNORECASE) for word in words)


def _no_split(meta: DatasetMeta, there: list[str]) -> DataError:
    return DataError(f"{name_of_source(meta)!r} has no split {meta.split!r}. It has: {', '.join(map(repr, there)) or 'none'}.")
