"""Writing a repository that is a folder with ``refs/`` and ``snapshots/``.

A snapshot is filled under a name that is no commit's, then renamed, and only then a reference points to it: whoever reads sees the
old one or the new one. One writer at a time, under a lock. Knows nothing of references and hubs.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from twinkle_hub.content import Content, files_of, inside
from twinkle_hub.digest import digest_of, sha256_of
from twinkle_hub.errors import HubError
from twinkle_hub.hub import UploadProgress

_INCOMPLETE = ".incomplete-"


class SnapshotWriter:
    """Writes into the repository ``root``; used inside ``with writing(root, …)``."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def commit_of(self, name: str) -> str | None:
        """The commit that the branch or tag ``name`` points to, or ``None``."""
        reference = self._root / "refs" / name
        return inside(reference, self._root).read_text(encoding="utf-8").strip() if reference.is_file() else None

    def add_snapshot(self, content: Content, parent: str | None, progress: Callable[[UploadProgress], None]) -> str:
        """Add the files of ``parent`` with those of ``content`` in their place; the commit is the digest of them all.

        Raises:
            HubError: a file of ``content`` changed meanwhile; there is no snapshot then.
        """
        snapshots = self._root / "snapshots"
        unfinished = Path(tempfile.mkdtemp(prefix=_INCOMPLETE, dir=snapshots))
        try:
            if parent is not None:
                before = snapshots / parent
                for path in set(files_of(before, self._root)).difference(content.paths):
                    _copy(before / path, unfinished / path)
            arrived = 0
            for number, path in enumerate(content.paths, 1):
                _copy(content.folder / path, unfinished / path)
                arrived += content.sizes[path]
                progress(UploadProgress(number, len(content.paths), arrived, content.total_bytes))
            content.check_unchanged()
            commit = digest_of({path: sha256_of(unfinished / path) for path in files_of(unfinished, unfinished)})
            if not (snapshots / commit).is_dir():
                unfinished.chmod(self._root.stat().st_mode & 0o777)  # as the repository; mkdtemp lets in its owner only
                unfinished.rename(snapshots / commit)
            return commit
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def point(self, name: str, commit: str) -> None:
        """Let the branch or tag ``name`` point to ``commit``."""
        reference = self._root / "refs" / name
        reference.parent.mkdir(parents=True, exist_ok=True)
        partial = reference.with_name(f".{reference.name}.part")  # under the lock, nobody else has that name
        partial.write_text(commit, encoding="utf-8")
        partial.replace(reference)


@contextmanager
def writing(root: Path, *, private: bool) -> Iterator[SnapshotWriter]:
    """The repository's writer, while nobody else writes; makes the repository where it isn't there.

    Raises:
        HubError: ``root`` is something else already.
    """
    from filelock import FileLock

    # Another writer may be making it right now: its lock comes first, then refs/.
    if root.exists() and any(path.name != ".lock" for path in root.iterdir()) and not (root / "refs").is_dir():
        raise HubError(
            f"{root} is a plain folder with files, not a repository with revisions (refs/ and snapshots/). "
            f"Publish to another folder."
        )
    root.parent.mkdir(parents=True, exist_ok=True)
    root.mkdir(mode=0o700 if private else 0o777, exist_ok=True)
    with FileLock(root / ".lock"):
        for folder in ("refs", "snapshots"):
            (root / folder).mkdir(exist_ok=True)
        for left_behind in (root / "snapshots").glob(f"{_INCOMPLETE}*"):  # by a writer that was killed
            shutil.rmtree(left_behind)
        yield SnapshotWriter(root)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
