"""The index of a checkpoint: every file with its size and SHA-256.

``twinkle_checkpoint.json`` is the last file that is written: a folder without it was cut short, or comes from elsewhere. Files
that were added afterwards aren't its business. Knows nothing of what is in the files.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from twinkle.errors import CheckpointError

INDEX = "twinkle_checkpoint.json"
_SCHEMA = 1


def write_index(folder: Path) -> None:
    """Write the index of all files that are in ``folder``, and see that they are on the disk."""
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        files[path.relative_to(folder).as_posix()] = {"size": path.stat().st_size, "sha256": _digest(path)}
        with path.open("rb") as file:
            os.fsync(file.fileno())
    with (folder / INDEX).open("w", encoding="utf-8") as file:
        json.dump({"schema": _SCHEMA, "files": files}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def verify_folder(folder: Path) -> None:
    """Check every file of a checkpoint against its index.

    Raises:
        CheckpointError: the folder or one of its files is missing, cut short or changed; names the file.
    """
    if not folder.is_dir():
        raise CheckpointError(f"There is no checkpoint at {folder}.")
    index = folder / INDEX
    if not index.is_file():
        raise CheckpointError(f"{folder} isn't a whole checkpoint: {INDEX}, which is written last, is missing.")
    try:
        content = json.loads(index.read_text())
        schema, files = content["schema"], content["files"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{index} can't be read: {error!r}") from error
    if schema != _SCHEMA:
        raise CheckpointError(f"{folder} has the layout {schema}; this version reads {_SCHEMA}.")
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"The checkpoint {folder} isn't whole: {name} is missing.")
        if path.stat().st_size != expected["size"]:
            raise CheckpointError(
                f"The checkpoint {folder} isn't whole: {name} has {path.stat().st_size} bytes instead of {expected['size']}."
            )
        if _digest(path) != expected["sha256"]:
            raise CheckpointError(f"The checkpoint {folder} is damaged: the content of {name} isn't what was written.")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
