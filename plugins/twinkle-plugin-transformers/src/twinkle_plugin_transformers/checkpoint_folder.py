"""A checkpoint's folder: written aside and renamed, and checked before anything is read from it.

The last file written is the index (``twinkle.checkpoint_index``).

A folder is replaced by two renames: the old one to ``.NAME.X.old``, the new one from ``.NAME.X.new``. Where the process ends
between the two, the next read or write of that name finishes the replacement. A lock on the new folder tells a writer that is still
at work from one that has ended. Knows nothing of what is in the files.
"""

from __future__ import annotations

import fcntl
import glob
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from twinkle.checkpoint_index import verify_folder, write_index
from twinkle.errors import CheckpointError, ConfigError


def checkpoint_path(name: str, output_dir: str | Path | None) -> Path:
    """Where the checkpoint ``name`` is: ``output_dir/name``, by default in ``output``.

    Raises:
        ConfigError: ``name`` isn't one folder name.
    """
    if not name or Path(name).name != name or name.startswith("."):
        raise ConfigError(f"A checkpoint's name has to be a plain folder name, not {name!r}. Give output_dir for where it goes.")
    return Path("output" if output_dir is None else output_dir) / name


def write_folder(target: Path, fill: Callable[[Path], None]) -> Path:
    """Make ``target`` with what ``fill`` writes into the folder that it is given; a folder that was there is replaced.

    What was there stays until the new one is whole. Where anything fails nothing has changed. What a writer of the same name left
    that was ended in the middle is finished or cleared away first.

    Raises:
        CheckpointError: it can't be written; names the folder.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        recover_folder(target)
        _clear_leftovers(target)
        aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".new", dir=target.parent))
    except OSError as error:
        raise CheckpointError(f"The checkpoint {target} can't be written: {error}") from error
    try:
        with _held(aside):
            fill(aside)
            write_index(aside)
            aside.chmod(0o777 & ~_umask())
            _swap(aside, target)
    except OSError as error:
        raise CheckpointError(f"The checkpoint {target} can't be written: {error}. What was there before is untouched.") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return target


def recover_folder(target: Path) -> None:
    """Finish a replacement of ``target`` that was ended between its two renames: the new folder takes its place where it is whole,
    else the old one. Does nothing where ``target`` is there, or a writer is at work on it.

    Raises:
        CheckpointError: the folder can't be put back; names it.
    """
    if target.exists():
        return
    for old in target.parent.glob(f".{glob.escape(target.name)}.*.old"):
        new = old.with_suffix(".new")
        if _is_held(new):
            return
        try:
            verify_folder(new)
        except CheckpointError:
            new = old
        try:
            new.rename(target)
        except OSError as error:
            raise CheckpointError(f"The checkpoint {target} is in {new}, and can't be put back: {error}") from error
        return


def _clear_leftovers(target: Path) -> None:
    for kind in ("new", "old"):
        for leftover in target.parent.glob(f".{glob.escape(target.name)}.*.{kind}"):
            if not _is_held(leftover.with_suffix(".new")):
                shutil.rmtree(leftover, ignore_errors=True)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder, which the system lets go when this process ends."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks: leftovers then count as abandoned
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _is_held(folder: Path) -> bool:
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def read_json(path: Path) -> Any:
    """The JSON in a checkpoint's file.

    Raises:
        CheckpointError: it is missing or isn't JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} can't be read: {error}") from error


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors in a safetensors file.

    Raises:
        CheckpointError: it is missing or cut short.
    """
    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} can't be read: {error}") from error
    return tensors


def first_of(problems: Sequence[str]) -> str:
    """The first three problems, and how many more there are."""
    more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
    return "; ".join(problems[:3]) + more


def _swap(aside: Path, target: Path) -> None:
    if not target.exists():
        aside.rename(target)
        return
    old = aside.with_suffix(".old")
    target.rename(old)
    try:
        aside.rename(target)
    except OSError:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
