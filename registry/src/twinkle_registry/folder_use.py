"""Folders that are in use: a lock that lives as long as whoever uses the folder, and leaves nothing behind.

The lock is the operating system's, on the folder itself: many may use it, and one that wants to remove it asks whether it is alone.
It ends with its process, however that ends. Where there are no such locks (Windows, some network file systems), everything counts
as in use.
"""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType

if sys.platform != "win32":
    import fcntl


class FolderUse:
    """Use of ``folder`` until ``close``, or until this object is gone. Processes forked meanwhile use it as well.

    Attributes:
        there: whether the folder is there; it stays then.
    """

    def __init__(self, folder: Path) -> None:
        self._descriptor = -1
        self.there = False
        if sys.platform == "win32":
            self.there = folder.is_dir()
            return
        try:
            self._descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            return
        with suppress(OSError):  # no such locks here: in_use() fails the same way
            fcntl.flock(self._descriptor, fcntl.LOCK_SH)  # waits for one that is removing it
        try:
            self.there = os.path.samestat(os.fstat(self._descriptor), folder.stat())
        except OSError:
            self.close()

    def close(self) -> None:
        """Use it no longer."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> FolderUse:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def take_away(folder: Path, aside: Path) -> bool:
    """Move ``folder`` to ``aside``, unless it is in use; whether it was moved. Whoever wants to use it meanwhile finds it gone."""
    if sys.platform == "win32":
        return False
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.fchmod(descriptor, 0o755)  # to move a folder is to write in it, to its ".."
        folder.rename(aside)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def in_use(folder: Path) -> bool:
    """Whether somebody uses ``folder``, or it can't be told."""
    if sys.platform == "win32":
        return True
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def remove_tree(folder: Path) -> None:
    """Remove ``folder`` and what is in it, read-only or not; what can't be removed stays."""
    for base, _, _ in os.walk(folder):
        with suppress(OSError):
            Path(base).chmod(0o755)
    shutil.rmtree(folder, ignore_errors=True)
