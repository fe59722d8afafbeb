"""Publishing a checkpoint's folder on a hub, now or in the background.

Knows nothing of what is in the folder, nor of any hub.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from twinkle.errors import CheckpointError, HubError
from twinkle.hub import start_upload, upload_folder

if TYPE_CHECKING:
    from twinkle_hub.uploads import UploadHandle


@dataclass(frozen=True)
class Publishing:
    """Where a checkpoint goes, and how.

    Attributes:
        repo: ``scheme://owner/name[@branch]``; no scheme: Hugging Face.
        token: instead of the one that the hub's client knows.
        private: publish to no public repository.
        message: of the commit.
    """

    repo: str
    private: bool
    message: str
    token: str | None = None

    def __repr__(self) -> str:
        return f"Publishing({self.repo!r})"  # and not the token

    def publish(self, folder: Path) -> str:
        """Publish ``folder`` and wait for it; returns where, with the commit.

        Raises:
            CheckpointError: the hub refuses, or can't be reached, for some minutes.
        """
        try:
            return str(upload_folder(folder, self.repo, private=self.private, message=self.message, token=self.token))
        except HubError as error:
            raise self._failure(folder, error) from error

    def start(self, folder: Path) -> UploadHandle:
        """Begin to publish ``folder``, which has to stay as it is meanwhile; ``result()`` raises what goes wrong.

        Raises:
            CheckpointError: ``repo`` is wrong.
        """
        try:
            return start_upload(folder, self.repo, private=self.private, message=self.message, token=self.token)
        except HubError as error:
            raise self._failure(folder, error) from error

    def _failure(self, folder: Path, error: HubError) -> CheckpointError:
        return CheckpointError(f"{folder} can't be published as {self.repo}: {error}")
