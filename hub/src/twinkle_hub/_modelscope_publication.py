"""The steps of publishing with ``modelscope_hub``.

The client's errors go through as they are; ``twinkle_hub.modelscope`` explains them.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from twinkle_hub.content import Content
from twinkle_hub.errors import AccessDeniedError, HubBusyError, HubError, RevisionNotFoundError
from twinkle_hub.hub import UploadProgress
from twinkle_hub.repository import RepoRef, RepoType

if TYPE_CHECKING:
    from modelscope_hub import HubApi


class Publication:
    """The steps of publishing to one repository, on the branch that ``reference`` names; each can be repeated."""

    def __init__(self, client: HubApi, reference: RepoRef, repo_type: RepoType) -> None:
        self._client = client
        self._reference = reference
        self._branch = reference.revision or ""
        self._repo_type = repo_type

    def prepare(self, *, private: bool) -> None:
        """Make the repository where it isn't there.

        Raises:
            AccessDeniedError: the repository is there and public, and ``private`` asks for another.
            RevisionNotFoundError: it has no such branch; the client can't make one.
        """
        from modelscope_hub.errors import AlreadyExistsError, NotExistError
        from modelscope_hub.types import Visibility

        repo_id, repo_type = self._reference.repo_id, self._repo_type
        try:
            found = self._client.get_repo(repo_id, repo_type)
        except NotExistError:
            try:
                self._client.create_repo(repo_id, repo_type, visibility="private" if private else "public")
            except AlreadyExistsError:  # by another process, a moment ago
                found = self._client.get_repo(repo_id, repo_type)
            else:
                return
        if private and found.visibility == Visibility.PUBLIC:
            raise AccessDeniedError(
                f"{self._reference.at(None)} is there already and is public. Publish to a private repository, "
                f"make this one private, or allow it: private=False"
            )
        branches, _ = self._client.legacy.list_revisions_detail(repo_id, repo_type)
        names = [str(row.get("Revision")) for row in branches]
        if names and self._branch not in names:
            raise RevisionNotFoundError(
                f"{self._reference}: the repository has no branch {self._branch!r}, and ModelScope's client can't make one. "
                f"It has: {', '.join(names[:10])}. Make it on the repository's page, or name another."
            )

    def send(self, content: Content, message: str, progress: Callable[[UploadProgress], None]) -> None:
        """Send the files and make the commits that hold them."""
        from modelscope_hub.errors import StorageError

        problems: list[str] = []

        def noted(event: Mapping[str, Any]) -> None:
            problems.extend([str(event["error"])] if event["error"] else [])
            progress(UploadProgress(event["committed_files"], event["total_files"], event["committed_bytes"], event["total_bytes"]))

        try:
            self._client.upload_folder(
                self._reference.repo_id,
                self._repo_type,
                content.folder,
                commit_message=message,
                revision=self._branch,
                allow_patterns=[glob.escape(path) for path in content.paths],
                use_cache=False,  # it would be a file in the folder; what has arrived isn't sent again without it, too
                disable_tqdm=True,
                progress_callback=noted,
            )
        except StorageError as error:  # it says how many files failed; why, only the events told
            raise _of_problem(self._reference, problems[-1] if problems else "") from error
        content.check_unchanged()

    def tag(self, tag: str, commit: str, tagged: Callable[[], str]) -> None:
        """Let ``tag`` name the commit at the head of the branch; ``tagged`` looks up what a tag that is there names."""
        repo_id, repo_type = self._reference.repo_id, self._repo_type
        _, tags = self._client.legacy.list_revisions_detail(repo_id, repo_type)
        if tag not in [str(row.get("Revision")) for row in tags]:
            self._client.create_repo_tag(repo_id, repo_type, tag, revision=self._branch)
        elif (found := tagged()) != commit:
            raise HubError(f"{self._reference.at(tag)} is there already, and is another commit ({found}). Choose another tag.")


def _of_problem(reference: RepoRef, problem: str) -> HubError:
    found = re.search(r"\[([45]\d\d)\]", problem)  # how the client writes a status into its errors
    status = found[1] if found else "5xx"
    if status in ("401", "403"):
        return AccessDeniedError(
            f"{reference}: the hub refuses access ({status}). Log in with an account that may do this: modelscope login"
        )
    if status.startswith("4") and status != "429":
        return HubError(f"{reference}: the hub refuses the files with status {status}. Check them, and the repository's limits.")
    return HubBusyError.of(reference, status)
