"""Many processes at once, and processes that are killed: one download, and nothing that looks whole and isn't."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path

import pytest

from twinkle_hub.digest import digest_of_bytes
from twinkle_hub.testing import HfServer
from twinkle_registry.collection import GRACE_S, collect
from twinkle_registry.store import ComponentStore

PROCESSES = 16
FILES = {
    "twinkle.toml": b"""\
schema = 1
[plugin]
name = "focal"
version = "1.2"
api = ">=1,<2"
[[component]]
kind = "loss"
name = "FocalLoss"
entry = "loss:FocalLoss"
""",
    "loss.py": b"class FocalLoss:\n    gamma = 2\n",
    **{f"data/words{number}.txt": b"word\n" * (100 + number) for number in range(10)},
}
DIGEST = digest_of_bytes(FILES)

LOAD = """
    import sys
    from pathlib import Path
    from twinkle_registry.registry import Registry
    print(Registry(home=Path(sys.argv[1])).load("loss", "hf://acme/focal").gamma)
"""

# Kills itself when it is about to touch the disk for the N-th time, as Python's audit events tell.
ADD_UNTIL_KILLED = """
    import os, signal, sys
    from pathlib import Path
    from twinkle_registry.store import ComponentStore
    left = int(sys.argv[3])
    def count(event, arguments):
        global left
        if event in ("open", "os.rename", "os.chmod", "os.mkdir", "os.scandir", "os.remove", "os.rmdir", "tempfile.mkdtemp"):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    store = ComponentStore(Path(sys.argv[1]))
    sys.addaudithook(count)
    store.add(Path(sys.argv[2]))
    os._exit(0)
"""


def command(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]


def environment(server: HfServer, tmp_path: Path) -> dict[str, str]:
    """Of a process that is allowed to load from ``server``, with empty caches."""
    unset = ("HF_HUB_OFFLINE", "TWINKLE_OFFLINE", "HF_TOKEN", "TWINKLE_LOCKED")
    return {
        **{name: value for name, value in os.environ.items() if name not in unset},
        "HF_ENDPOINT": server.endpoint,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "TWINKLE_TRUST_REMOTE_CODE": "1",
        "OMP_NUM_THREADS": "1",
    }


def assert_nothing_looks_whole_that_is_not(home: Path) -> None:
    """The store has the whole of it, verified, or nothing under any digest."""
    store = ComponentStore(home)
    folder = home / "components" / "sha256"
    for path in folder.iterdir() if folder.is_dir() else ():
        assert path.name == DIGEST or path.name.startswith(".")
    if DIGEST in store:
        assert set(store.read(DIGEST).sizes) == set(FILES)


def test_of_many_processes_on_a_cold_cache_one_downloads_and_all_get_it(home: Path, tmp_path: Path):
    with HfServer() as server:
        server.repositories.commit("acme/focal", FILES)
        started = [
            subprocess.Popen(
                command(LOAD, home), stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=environment(server, tmp_path)
            )
            for _ in range(PROCESSES)
        ]
        assert [process.communicate()[0].strip() for process in started] == ["2"] * PROCESSES
        fetched = Counter(
            request.path.rpartition("/resolve/")[2].partition("/")[2]
            for request in server.requests
            if "/resolve/" in request.path and request.method == "GET"
        )
    assert fetched == dict.fromkeys(FILES, 1)
    assert [path.name for path in (home / "components" / "sha256").iterdir()] == [DIGEST]


def test_a_process_that_is_killed_while_it_adds_leaves_nothing_that_looks_whole(home: Path, tmp_path: Path):
    repository = tmp_path / "repository"
    for path, content in FILES.items():
        (repository / path).parent.mkdir(parents=True, exist_ok=True)
        (repository / path).write_bytes(content)
    outcomes = []
    for step in (*range(1, 16), *range(16, 200, 8)):
        own = home.with_name(f"home{step}")
        status = subprocess.run(command(ADD_UNTIL_KILLED, own, repository, step), check=False).returncode
        outcomes.append(status)
        assert status in (0, -signal.SIGKILL)
        assert_nothing_looks_whole_that_is_not(own)
        store = ComponentStore(own)
        assert store.read(store.add(repository)).digest == DIGEST
        old = time.time() - 2 * GRACE_S
        for path in (own / "components" / "sha256").glob(".*"):
            os.utime(path, (old, old))
        collect(own, (DIGEST,), older_than_s=0)
        assert [path.name for path in (own / "components" / "sha256").iterdir()] == [DIGEST]
        if status == 0:
            break
    assert outcomes.count(-signal.SIGKILL) >= 20
    assert outcomes[-1] == 0


@pytest.mark.slow
def test_a_process_that_is_killed_while_it_loads_from_a_hub_leaves_nothing_that_looks_whole(home: Path, tmp_path: Path):
    with HfServer() as server:
        server.repositories.commit("acme/focal", FILES)
        began = time.monotonic()
        subprocess.run(
            command(LOAD, home.with_name("first")), check=True, cwd=tmp_path, env=environment(server, tmp_path / "first")
        )
        whole = time.monotonic() - began
        for step in range(20):
            own, caches = home.with_name(f"home{step}"), tmp_path / f"caches{step}"
            with subprocess.Popen(command(LOAD, own), cwd=tmp_path, env=environment(server, caches), stdout=-3) as process:
                time.sleep(whole * (0.3 + 0.7 * step / 20))  # the first third is imports
                process.kill()
            assert_nothing_looks_whole_that_is_not(own)
            done = subprocess.run(
                command(LOAD, own), capture_output=True, text=True, check=True, cwd=tmp_path, env=environment(server, caches)
            )
            assert done.stdout.strip() == "2"
            assert ComponentStore(own).read(DIGEST).digest == DIGEST
