"""The steps of publishing with ``huggingface_hub``.

The client's errors go through as they are; ``twinkle_hub.huggingface`` explains them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twinkle_hub.content import Content
from twinkle_hub.errors import AccessDeniedError, HubError
from twinkle_hub.hub import UploadProgress
from twinkle_hub.repository import RepoRef, RepoType

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi

_LARGE = 1 << 20  # bytes; from here on a file is sent, and counted, on its own account
_TOGETHER = 4  # large files that are sent at once; the client's threads do it


class Publication:
    """The steps of publishing to one repository; each can be repeated."""

    def __init__(self, client: HfApi, reference: RepoRef, repo_type: RepoType, progress: Callable[[UploadProgress], None]) -> None:
        self._client = client
        self._reference = reference
        self._repo_type = repo_type
        self._branch = reference.revision or "main"
        self._progress = progress

    def prepare(self, *, private: bool) -> None:
        """Make the repository and the branch where they aren't there.

        Raises:
            AccessDeniedError: the repository is there and public, and ``private`` asks for another.
        """
        repo_id, repo_type = self._reference.repo_id, self._repo_type
        self._client.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True)
        if private and self._client.repo_info(repo_id, repo_type=repo_type).private is False:
            raise AccessDeniedError(
                f"{self._reference.at(None)} is there already and is public. Publish to a private repository, "
                f"make this one private, or allow it: private=False"
            )
        if self._branch != "main":
            self._client.create_branch(repo_id, branch=self._branch, repo_type=repo_type, exist_ok=True)

    def commit(self, content: Content, message: str, tag: str | None) -> str:
        """Send the files, make the commit that holds them all, and tag it; the commit's name."""
        from huggingface_hub import CommitOperationAdd

        operations = [CommitOperationAdd(path, content.folder / path) for path in content.paths]
        self._send_large(content, [operation for operation in operations if content.sizes[operation.path_in_repo] >= _LARGE])
        content.check_unchanged()
        commit = self._client.create_commit(
            self._reference.repo_id, operations, commit_message=message, repo_type=self._repo_type, revision=self._branch
        ).oid
        content.check_unchanged()
        self._progress(UploadProgress(len(content.paths), len(content.paths), content.total_bytes, content.total_bytes))
        if tag is not None:
            self._tag(tag, commit)
        return commit

    def _send_large(self, content: Content, operations: list[CommitOperationAdd]) -> None:
        files = arrived = 0
        for start in range(0, len(operations), _TOGETHER):
            batch = operations[start : start + _TOGETHER]
            self._client.preupload_lfs_files(
                self._reference.repo_id, batch, repo_type=self._repo_type, revision=self._branch, free_memory=False
            )
            files += len(batch)
            arrived += sum(content.sizes[operation.path_in_repo] for operation in batch)
            self._progress(UploadProgress(files, len(content.paths), arrived, content.total_bytes))

    def _tag(self, tag: str, commit: str) -> None:
        repo_id, repo_type = self._reference.repo_id, self._repo_type
        self._client.create_tag(repo_id, tag=tag, revision=commit, repo_type=repo_type, exist_ok=True)
        found = self._client.repo_info(repo_id, revision=tag, repo_type=repo_type).sha
        if found != commit:
            raise HubError(f"{self._reference.at(tag)} is there already, and is another commit ({found}). Choose another tag.")
