"""Publishing a folder: by reference, with retries, and in the background where asked for.

Knows nothing of any hub's protocol, nor of what is in the folder. A token that is given goes to the hub's client and nowhere else.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from twinkle_hub.content import Content
from twinkle_hub.errors import HubError
from twinkle_hub.hub import UploadProgress, WritableHub
from twinkle_hub.hubs import Hubs, locate
from twinkle_hub.repository import RepoRef, RepoType
from twinkle_hub.retries import Retries

PATIENT = Retries(attempts=5, first_wait=2.0, longest_wait=120.0)
"""For uploads: what was trained for days is worth a few minutes. 2 + 4 + 8 + 16 seconds, or what the hub asks for."""


@dataclass(frozen=True, slots=True)
class UploadOptions:
    """What is published of a folder, and how; see ``WritableHub.upload``."""

    repo_type: RepoType = "model"
    message: str = "Upload"
    private: bool = True
    allow_patterns: Sequence[str] | None = None
    ignore_patterns: Sequence[str] | None = None
    tag: str | None = None


_PLAIN = UploadOptions()


@dataclass(frozen=True, slots=True)
class Uploaded:
    """What was published: ``reference`` without a revision, and the commit that holds it."""

    reference: RepoRef
    commit: str

    def __str__(self) -> str:
        return str(self.reference.at(self.commit))


class UploadHandle:
    """An upload that runs in the background. The process waits for it at its end, unless it is killed."""

    def __init__(self, reference: RepoRef, act: Callable[[Callable[[UploadProgress], None]], Uploaded]) -> None:
        self.reference = reference
        self._future: Future[Uploaded] = Future()
        self._progress: UploadProgress | None = None
        self._act = act
        self._thread = threading.Thread(target=self._run, name=f"upload to {reference}")  # no daemon: it is finished at exit

    @property
    def progress(self) -> UploadProgress | None:
        """How far it has come; ``None`` where nothing has arrived yet."""
        return self._progress

    def start(self) -> UploadHandle:
        """Begin; returns the handle."""
        self._thread.start()
        return self

    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self._future.done()

    def result(self, timeout: float | None = None) -> Uploaded:
        """Wait for the end and return what was published.

        Raises:
            HubError: why it failed, in the words of an upload in the foreground.
            TimeoutError: it hasn't ended within ``timeout`` seconds; it goes on.
        """
        return self._future.result(timeout)

    def __repr__(self) -> str:
        return f"<upload to {self.reference}: {'ended' if self.done() else self._progress or 'begins'}>"

    def _run(self) -> None:
        try:
            self._future.set_result(self._act(self._note))
        except BaseException as error:
            self._future.set_exception(error)  # result() raises it, in the thread of who asks

    def _note(self, progress: UploadProgress) -> None:
        self._progress = progress


def upload(
    folder: Path,
    reference: str,
    *,
    hubs: Hubs,
    options: UploadOptions = _PLAIN,
    token: str | None = None,
    mirror: Mapping[str, str] | None = None,
    retries: Retries = PATIENT,
    progress: Callable[[UploadProgress], None] | None = None,
) -> Uploaded:
    """Publish ``folder`` as ``scheme://owner/name[@branch]`` (no scheme: Hugging Face); see ``WritableHub.upload``.

    Args:
        token: instead of the one that the hub's client knows.
        mirror: the project's table. A reference that is in it is refused: what is published goes where it says, or nowhere.
        retries: for busy hubs and broken connections, beyond what the hub's client itself does.
        progress: called as files arrive.

    Raises:
        HubError: it can't be published.
    """
    target, hub = _target(reference, hubs, mirror)

    def act() -> str:
        return hub.upload(
            folder,
            target.repo_id,
            repo_type=options.repo_type,
            revision=target.revision,
            message=options.message,
            private=options.private,
            allow_patterns=options.allow_patterns,
            ignore_patterns=options.ignore_patterns,
            tag=options.tag,
            token=token,
            progress=progress,
        )

    return Uploaded(target.at(None), retries.run(act))


def start_upload(
    folder: Path,
    reference: str,
    *,
    hubs: Hubs,
    options: UploadOptions = _PLAIN,
    token: str | None = None,
    mirror: Mapping[str, str] | None = None,
    retries: Retries = PATIENT,
) -> UploadHandle:
    """As ``upload``, in a thread of its own. A file of ``folder`` that changes before it has ended is an error.

    Raises:
        HubError: the reference is wrong, or there is nothing to publish; what comes later is raised by ``result()``.
    """
    target, _ = _target(reference, hubs, mirror)
    Content.of(folder, options.allow_patterns, options.ignore_patterns)

    def act(progress: Callable[[UploadProgress], None]) -> Uploaded:
        return upload(folder, reference, hubs=hubs, options=options, token=token, retries=retries, progress=progress)

    return UploadHandle(target, act).start()


def _target(reference: str, hubs: Hubs, mirror: Mapping[str, str] | None) -> tuple[RepoRef, WritableHub]:
    target = RepoRef.parse(reference if "://" in reference else f"hf://{reference}")
    if mirror and locate(str(target), mirror=mirror) != target:
        raise HubError(
            f"{target} is mirrored elsewhere by [mirror] in the project's twinkle.toml, so it isn't published to. "
            f"Name the place that is meant, or remove the entry."
        )
    hub = hubs.get(target.scheme)
    if not isinstance(hub, WritableHub):
        raise HubError(f"{target}: nothing can be published on {target.scheme}://. Publish to hf://, ms:// or file://.")
    return target, hub
