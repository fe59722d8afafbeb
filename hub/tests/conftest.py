"""Loopback servers, and hubs that talk to them with the real clients."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from twinkle_hub.errors import HubError
from twinkle_hub.hub import Hub
from twinkle_hub.huggingface import HfHub
from twinkle_hub.modelscope import MsHub
from twinkle_hub.retries import Retries
from twinkle_hub.testing import HfServer, MsServer
from twinkle_hub.testing.loopback import LoopbackServer

TOKEN = "sekret-a1b2c3"


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sees or leaves anything in the user's home, nor waits between repeated requests."""
    for name in ("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE", "MODELSCOPE_ENDPOINT", "MODELSCOPE_API_TOKEN", "TWINKLE_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MODELSCOPE_HOME", str(tmp_path / "modelscope-home"))
    monkeypatch.setattr("urllib3.util.retry.Retry.get_backoff_time", lambda self: 0)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)  # the servers know no Xet
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))


@dataclass
class Remote:
    """A test server, and hubs that know only it."""

    server: LoopbackServer
    hub_type: type[HfHub] | type[MsHub]
    cache: Path

    def hub(self, **options: object) -> Hub:
        options.setdefault("retries", Retries(first_wait=0))
        return self.hub_type(endpoint=self.server.endpoint, cache_dir=self.cache, **options)


@pytest.fixture
def hf(tmp_path: Path) -> Iterator[Remote]:
    with HfServer(token=TOKEN, gated=frozenset({"acme/gated"})) as server:
        yield Remote(server, HfHub, tmp_path / "cache")


@pytest.fixture
def ms(tmp_path: Path) -> Iterator[Remote]:
    with MsServer(token=TOKEN) as server:
        yield Remote(server, MsHub, tmp_path / "cache")


@pytest.fixture(params=["hf", "ms"])
def remote(request: pytest.FixtureRequest) -> Remote:
    """Each of the hubs in turn."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def write() -> Callable[..., Path]:
    """Write files (relative path to text) below a folder and return it."""

    def write(folder: Path, **files: str) -> Path:
        for name, text in files.items():
            path = folder / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return folder

    return write


@pytest.fixture
def message() -> Callable[..., str]:
    """The message of the HubError that a call raises."""

    def message(call: Callable[..., object], *args: object, kind: type[HubError] = HubError, **options: object) -> str:
        with pytest.raises(kind) as raised:
            call(*args, **options)
        return str(raised.value)

    return message
