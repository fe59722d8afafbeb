"""A token goes to its hub, and nowhere else: planted in each of the places that a client takes it from, then looked for."""

import logging
import os
import pickle
import subprocess
import sys
import traceback

import pytest

from twinkle_hub.errors import HubError
from twinkle_hub.hubs import Hubs
from twinkle_hub.retries import Retries
from twinkle_hub.testing import Fault
from twinkle_hub.uploads import start_upload, upload

# huggingface_hub sends files in a way that its own transport calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

TOKEN = "sekret-a1b2c3"

FAULTS = [
    Fault("none"),
    Fault("api/", status=403),
    Fault("api/", status=500),
    Fault("", drop=True),
    Fault("", body=b"no json"),
    Fault("commit/", status=503),
]


@pytest.fixture(params=["argument", "environment", "store"])
def hub(request, remote, monkeypatch, tmp_path):
    """A hub whose client has the token from each place in turn."""
    if request.param == "argument":
        return remote.hub(token=TOKEN)
    if request.param == "environment":
        monkeypatch.setenv("HF_TOKEN" if remote.hub().scheme == "hf" else "MODELSCOPE_API_TOKEN", TOKEN)
    elif remote.hub().scheme == "hf":
        store = tmp_path / "clients-own-store"
        store.write_text(TOKEN)
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(store))
    else:
        from modelscope_hub import HubConfig

        HubConfig(endpoint=remote.server.endpoint).save_token(TOKEN)
    return remote.hub()


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.pattern}-{fault.status or ''}{'drop' if fault.drop else ''}")
def test_a_token_is_in_no_log_error_traceback_or_cache(remote, hub, folder, fault, caplog, capfd, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between attempts
    caplog.set_level(logging.DEBUG)
    remote.server.repositories.commit("acme/private", {"a.txt": b"1"}, private=True)
    assert (hub.download("acme/private") / "a.txt").read_bytes() == b"1"  # it was found, and works
    remote.server.faults.append(Fault(**{**vars(fault)}))
    name, hubs = f"{hub.scheme}://acme/m", Hubs([hub])
    calls = [
        lambda: hub.resolve("acme/private"),
        lambda: hub.list_files("acme/private"),
        lambda: hub.download("acme/private"),
        lambda: upload(folder, name, hubs=hubs, retries=Retries(attempts=2, first_wait=0)),
        lambda: start_upload(folder, name, hubs=hubs, retries=Retries(attempts=2, first_wait=0)).result(timeout=30),
    ]
    shown = []
    for call in calls:
        try:
            shown.append(repr(call()))
        except HubError as error:
            shown += traceback.format_exception(error)
            shown.append(repr(pickle.loads(pickle.dumps(error))))
    shown += [record.getMessage() for record in caplog.records] + list(capfd.readouterr())
    assert TOKEN not in "\n".join(shown)
    for path in (*remote.cache.rglob("*"), *folder.rglob("*")):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes()


@pytest.mark.parametrize("place", ["HF_ENDPOINT", "MODELSCOPE_ENDPOINT"])
def test_the_endpoint_of_the_environment_is_the_hub(place, request, tmp_path):
    remote = request.getfixturevalue("hf" if place == "HF_ENDPOINT" else "ms")
    remote.server.repositories.commit("acme/m", {"a.txt": b"1"}, private=True)
    code = (
        "import sys; from twinkle_hub.hubs import Hubs, fetch;"
        "print((fetch(sys.argv[1], hubs=Hubs.standard()) / 'a.txt').read_text())"
    )
    environment = {
        "PATH": os.defpath,
        place: remote.server.endpoint,
        "HF_TOKEN": TOKEN,
        "MODELSCOPE_API_TOKEN": TOKEN,
        "HF_HOME": str(tmp_path / "hf"),
        "MODELSCOPE_CACHE": str(tmp_path / "ms"),
        "HOME": str(tmp_path),
    }
    command = [sys.executable, "-c", code, f"{remote.hub().scheme}://acme/m"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "1\n", done.stderr
    assert TOKEN not in done.stderr
