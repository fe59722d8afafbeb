"""Runs a function in several processes that are ranks of one world, as torchrun would, but cheaply: for tests.

The processes are forked from a server that has imported torch once and has done nothing else, so a rank starts in milliseconds
and inherits no threads. Knows nothing of what the function does; anything that pickles comes back.
"""

from __future__ import annotations

import importlib
import importlib.util
import multiprocessing
import os
import pickle
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from twinkle.errors import ConfigError, TwinkleError

T = TypeVar("T")

_LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


class RankError(TwinkleError, RuntimeError):
    """A rank raised, died, or didn't end in time; the message holds its traceback."""


@dataclass(frozen=True)
class _Job:
    """What a rank has to do. ``module`` and ``file`` say where the function is from; ``call`` is it with its arguments, pickled."""

    rank: int
    environ: Mapping[str, str]
    module: str
    file: str | None
    call: bytes


def run_ranks(
    function: Callable[..., T],
    world_size: int,
    *args: Any,
    timeout: float = 120.0,
    environ: Mapping[str, str] | None = None,
    preload: Sequence[str] = ("torch",),
) -> list[T]:
    """Call ``function(*args)`` in each of ``world_size`` processes; return their results, in order of rank.

    Each has ``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``, ``LOCAL_WORLD_SIZE``, ``MASTER_ADDR`` and ``MASTER_PORT`` of a world of
    its own, and one torch thread. The current runtime is taken down when the function returns.

    Args:
        function: at the top level of a module (a test module too). Arguments and result have to pickle.
        timeout: seconds for all of them together.
        environ: more variables for every rank.
        preload: modules that the server imports before it forks; only its first use in a process can choose them.

    Raises:
        RankError: a rank raised (the first that did is shown, with its traceback), died, or the time ran out. None is left running.
        ConfigError: the function isn't at the top level of a module.
    """
    if world_size < 1:
        raise ConfigError(f"world_size has to be a positive number of processes, not {world_size}.")
    jobs = _jobs(function, world_size, args, environ or {})
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    connections: dict[Connection, tuple[int, ForkServerProcess]] = {}
    grace = 0.0  # seconds to end by itself: for ranks that have answered
    try:
        for job in jobs:
            connection, process = _start(context, job)
            connections[connection] = (job.rank, process)
        results = _await(connections, time.monotonic() + timeout, timeout)
        grace = 5.0
    finally:
        for connection, (_, process) in connections.items():
            connection.close()
            _end(process, grace)
    return [results[rank] for rank in range(world_size)]


def _jobs(function: Callable[..., Any], world_size: int, args: tuple[Any, ...], environ: Mapping[str, str]) -> list[_Job]:
    name = getattr(function, "__qualname__", "")
    if not name.isidentifier():
        raise ConfigError(f"run_ranks takes a function from the top level of a module, which {name or function!r} is not.")
    module = function.__module__
    file = getattr(sys.modules[module], "__file__", None)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": _LOOPBACK,
        "OMP_NUM_THREADS": "1",
        **environ,
    }
    call = pickle.dumps((name, args))
    return [_Job(rank, {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, module, file, call) for rank in range(world_size)]


def _start(context: ForkServerContext, job: _Job) -> tuple[Connection, ForkServerProcess]:
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(
        target=_run, args=(job, theirs, dict(os.environ), list(sys.path)), daemon=True, name=f"rank-{job.rank}"
    )
    # The child prepares itself by running the parent's main script, which a test run's ``pytest`` is; no rank needs that.
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        process.start()
    finally:
        sys.modules["__main__"] = main
    theirs.close()
    return ours, process


def _run(job: _Job, connection: Connection, environ: Mapping[str, str], path: list[str]) -> None:
    """The life of a rank: in its process."""
    try:
        os.environ.clear()
        os.environ.update({**environ, **job.environ})
        sys.path[:] = path
        module = _module(job.module, job.file)
        name, args = pickle.loads(job.call)  # noqa: S301  # from run_ranks, a pipe away
        answer = (True, _call(getattr(module, name), args))
    except BaseException:
        answer = (False, traceback.format_exc())
    try:
        payload = pickle.dumps(answer)
    except Exception:
        payload = pickle.dumps((False, f"The result of rank {job.rank} can't be pickled.\n{traceback.format_exc()}"))
    connection.send_bytes(payload)
    connection.close()


def _call(function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    from twinkle.runtime import current_runtime

    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(1)
    result = function(*args)
    current_runtime().close()
    return result


def _module(name: str, file: str | None) -> ModuleType:
    """The module that the function is from; a test module has a file, but often no name that can be imported."""
    if name == "__main__":
        # As multiprocessing does: the script runs under another name, so that its ``if __name__ == "__main__"`` doesn't.
        module = sys.modules["__main__"] = _load("__mp_main__", file)
        return module
    if name in sys.modules or file is None:
        return importlib.import_module(name)
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        found = None
    if found is not None and found.origin is not None and Path(found.origin) == Path(file):
        return importlib.import_module(name)
    return _load(name, file)


def _load(name: str, file: str | None) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, file) if file is not None else None
    if spec is None or spec.loader is None:
        raise ImportError(f"The function's module {name} has no Python file ({file}) to load it from.")
    parents = list(accumulate(name.split(".")[:-1], "{}.{}".format))
    for parent in parents:  # a folder of tests is no package, but pickle imports what comes before the first dot
        if parent not in sys.modules and importlib.util.find_spec(parent) is None:
            sys.modules[parent] = ModuleType(parent)
            sys.modules[parent].__path__ = []
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _await(connections: Mapping[Connection, tuple[int, ForkServerProcess]], deadline: float, timeout: float) -> dict[int, Any]:
    results: dict[int, Any] = {}
    waiting = dict(connections)
    while waiting:
        ready = wait(list(waiting), max(deadline - time.monotonic(), 0))
        if not ready:
            ranks = ", ".join(str(rank) for rank, _ in waiting.values())
            raise RankError(f"After {timeout:g} s, rank(s) {ranks} of {len(connections)} were still running; they were ended.")
        for connection in ready:
            assert isinstance(connection, Connection)
            rank, process = waiting.pop(connection)
            results[rank] = _result(connection, rank, process)
    return results


def _result(connection: Connection, rank: int, process: ForkServerProcess) -> Any:
    try:
        succeeded, value = pickle.loads(connection.recv_bytes())  # noqa: S301  # from our own child
    except EOFError:
        process.join(5)
        raise RankError(f"Rank {rank} died without a word (exit code {process.exitcode}).") from None
    if not succeeded:
        raise RankError(f"Rank {rank} raised:\n{value}")
    return value


def _end(process: ForkServerProcess, grace: float) -> None:
    process.join(grace)
    if process.is_alive():
        process.kill()
        process.join()
    process.close()
