"""Telling people that a run began, ended or failed, by the notifier that ``initialize`` was given.

A message that can't be sent is logged and changes nothing else. Knows nothing of runtimes.
"""

from __future__ import annotations

import atexit
import sys
from types import TracebackType

from twinkle.component import make_component
from twinkle.logger import get_logger, redact


class RunNotices:
    """The three messages of one run: it began, and then either ended or failed with an exception that nobody caught.

    Args:
        notifier: an instance, function or reference of the kind ``notifier``; None: nobody is told.
        run: the run's name.

    Raises:
        TwinkleError: there is no such notifier.
    """

    def __init__(self, notifier: object, run: str | None) -> None:
        self._send = None if notifier is None else make_component("notifier", notifier)
        self._run = f"Run {run}" if run else "A run"
        self._open = False

    def begin(self, where: str) -> None:
        """Tell that the run began, and watch for its end: of this process, or of ``end()``."""
        if self._send is None or self._open:
            return
        self._open = True
        self._earlier_hook = sys.excepthook
        sys.excepthook = self._fail
        atexit.register(self.end)
        self._tell("begin", f"{self._run} began: {where}")

    def end(self) -> None:
        """Tell that the run ended, if it began and hasn't ended yet."""
        if self._close():
            self._tell("end", f"{self._run} ended")

    def _fail(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        hook = self._earlier_hook
        if self._close():
            self._tell("fail", redact(f"{self._run} failed: {kind.__name__}: {error}"))
        hook(kind, error, trace)

    def _close(self) -> bool:
        if not self._open:
            return False
        self._open = False
        if sys.excepthook == self._fail:  # somebody else may have put theirs in front of it: then it stays, and does nothing
            sys.excepthook = self._earlier_hook
        atexit.unregister(self.end)
        return True

    def _tell(self, event: str, message: str) -> None:
        assert self._send is not None
        try:
            self._send(message, event=event)
        except Exception as error:
            get_logger("twinkle.run").warning("The notifier %r could not send %r: %s", self._send, message, error)
