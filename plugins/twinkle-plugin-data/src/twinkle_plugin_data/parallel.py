"""Work on numbered pieces in several processes, results in order.

Processes are forked, so that they have everything this one has without pickling it; only results travel. Knows nothing of
what the work is.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Generator
from contextlib import closing
from typing import TYPE_CHECKING, Any, TypeVar

from twinkle.errors import TwinkleError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

T = TypeVar("T")


def can_fork() -> bool:
    """Whether this platform forks processes."""
    return "fork" in multiprocessing.get_all_start_methods()


def ordered_results(work: Callable[[int], T], pieces: int, processes: int) -> Generator[T, None, None]:
    """``work(0)`` … ``work(pieces - 1)``, in order, done by ``processes`` forks of this process.

    Raises:
        TwinkleError: ``work`` raised it; the other processes are ended.
        RuntimeError: ``work`` raised something else, or a process died.
    """
    context = multiprocessing.get_context("fork")
    crew = []
    try:
        for number in range(processes):
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_serve, args=(work, range(number, pieces, processes), sender), daemon=True)
            process.start()
            sender.close()  # so that the end of the process is the end of the pipe
            crew.append((process, receiver))
        for piece in range(pieces):
            yield _received(crew[piece % processes][1])
    finally:
        for process, receiver in crew:
            receiver.close()
            process.terminate()
            process.join()


def _received(receiver: Connection) -> Any:
    try:
        done, value = receiver.recv()
    except EOFError:
        raise RuntimeError("A process that was started with num_proc died. It may have run out of memory; use fewer.") from None
    if not done:
        raise value
    return value


def _serve(work: Callable[[int], Any], pieces: range, sender: Connection) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one process is one worker; the library also warns of forks otherwise
    with closing(sender):
        for piece in pieces:
            try:
                result = True, work(piece)
            except TwinkleError as error:
                result = False, error
            except Exception as error:
                result = False, RuntimeError(f"{type(error).__name__}: {error}")
            sender.send(result)
            if not result[0]:
                return
