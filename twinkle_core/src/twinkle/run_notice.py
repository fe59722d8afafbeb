"""Telling that a run began, ended or failed: people by the notifier that ``initialize`` was given, and plugins by their hooks.

A message that can't be sent is logged and changes nothing else. Knows nothing of runtimes.
"""

from __future__ import annotations

import atexit
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from twinkle.component import make_component
from twinkle.logger import get_logger, redact
from twinkle.run_hooks import RunHooks


class RunNotices:
    """The three messages of one run: it began, and then either ended or failed with an exception that nobody caught.

    Args:
        notifier: an instance, function or reference of the kind ``notifier``; None: nobody is told.
        run: the run's name.
        hooks: the run's hooks.

    Raises:
        TwinkleError: there is no such notifier.
    """

    def __init__(self, notifier: object, run: str | None, hooks: RunHooks) -> None:
        self._send = None if notifier is None else make_component("notifier", notifier)
        self._run = f"Run {run}" if run else "A run"
        self._hooks = hooks
        self._open = False

    def begin(self, where: str, config: Mapping[str, Any]) -> None:
        """Tell that the run began, ``where`` and with which ``config``; and watch for its end: of this process, or of ``end()``."""
        if self._open or (self._send is None and self._hooks.wanted.isdisjoint({"twinkle_run_start", "twinkle_run_end"})):
            return
        self._open = True
        self._earlier_hook = sys.excepthook
        sys.excepthook = self._fail
        atexit.register(self.end)
        self._tell("begin", f"{self._run} began: {where}")
        self._hooks.start_run(config)

    def end(self) -> None:
        """Tell that the run ended, if it began and hasn't ended yet."""
        if self._close():
            self._hooks.end_run(None)
            self._tell("end", f"{self._run} ended")

    def _fail(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        hook = self._earlier_hook
        if self._close():
            self._hooks.end_run(error)
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
        if self._send is None:
            return
        try:
            self._send(message, event=event)
        except Exception as error:
            get_logger("twinkle.run").warning("The notifier %r could not send %r: %s", self._send, message, error)
