"""Checkpoints are published by the hubs' own clients, to servers on this machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from twinkle.errors import CheckpointError
from twinkle_hub.testing import Fault, HfServer, MsServer
from twinkle_plugin_transformers.publishing import Publishing

# huggingface_hub sends files in a way that its own transport calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

TOKEN = "canary-a1b2c3"


@pytest.fixture
def hf(monkeypatch, tmp_path) -> Iterator[HfServer]:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)  # the server knows no Xet
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with HfServer(token=TOKEN) as server:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.endpoint)
        monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", server.endpoint)
        yield server


def arrived(server: HfServer | MsServer) -> dict[str, bytes]:
    repository = server.repositories.get("me/adapter", "model")
    assert repository is not None
    return repository.commits[repository.branches[repository.default_branch]]


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_checkpoint_arrives_as_it_is(make_model, hf, tmp_path):
    model = make_model()
    folder = model.save("adapter", output_dir=tmp_path)
    where = model.upload_to_hub(folder, "hf://me/adapter", hub_token=TOKEN)
    repository = hf.repositories.get("me/adapter", "model")
    assert where == f"hf://me/adapter@{repository.branches['main']}"
    assert arrived(hf) == files(folder)
    assert repository.private


def test_modelscope_takes_it_too(make_model, monkeypatch, tmp_path):
    monkeypatch.setenv("MODELSCOPE_HOME", str(tmp_path / "modelscope-home"))
    model = make_model()
    folder = model.save("adapter", output_dir=tmp_path)
    with MsServer(token=TOKEN) as server:
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", server.endpoint)
        model.upload_to_hub(folder, "ms://me/adapter", hub_token=TOKEN)
        assert arrived(server) == files(folder)


def test_it_can_go_on_in_the_background(make_model, hf, tmp_path):
    model = make_model()
    folder = model.save("adapter", output_dir=tmp_path)
    hf.faults.append(Fault("commit/", delay=0.2))
    handle = model.upload_to_hub(folder, "hf://me/adapter", hub_token=TOKEN, background=True)
    assert not handle.done()
    assert str(handle.result(timeout=30)) == f"hf://me/adapter@{hf.repositories.get('me/adapter', 'model').branches['main']}"
    assert arrived(hf) == files(folder)
    assert handle.progress.files == handle.progress.total_files == len(files(folder))


def test_a_checkpoint_may_go_to_a_folder(make_model, tmp_path):
    model = make_model()
    folder = model.save("adapter", output_dir=tmp_path)
    where = model.upload_to_hub(folder, f"file://{tmp_path}/published")
    commit = where.rpartition("@")[2]
    assert files(tmp_path / "published" / "snapshots" / commit) == files(folder)


def test_a_public_repository_is_refused_unless_it_is_meant(make_model, hf, tmp_path):
    hf.repositories.commit("me/adapter", {"README.md": b"about"})
    model = make_model()
    folder = model.save("adapter", output_dir=tmp_path)
    with pytest.raises(CheckpointError, match=r"is public.*private=False"):
        model.upload_to_hub(folder, "hf://me/adapter", hub_token=TOKEN)
    assert arrived(hf) == {"README.md": b"about"}
    model.upload_to_hub(folder, "hf://me/adapter", hub_token=TOKEN, private=False)
    assert arrived(hf) == {"README.md": b"about", **files(folder)}


def test_a_hub_that_is_busy_for_a_while_is_asked_again(make_model, hf, tmp_path, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    model = make_model()
    folder = model.save("adapter", output_dir=tmp_path)
    hf.faults.append(Fault("commit/", status=429, headers={"Retry-After": "7"}, times=3))
    model.upload_to_hub(folder, "hf://me/adapter", hub_token=TOKEN)
    assert arrived(hf) == files(folder)


def test_only_a_whole_checkpoint_is_published(make_model, tmp_path):
    model = make_model()
    folder = model.save("adapter", output_dir=tmp_path)
    (folder / "adapter_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"adapter_config\.json is missing"):
        model.upload_to_hub(folder, "hf://me/adapter")


def test_a_hub_that_is_not_known_is_refused(tmp_path):
    (tmp_path / "a").write_text("1")
    with pytest.raises(CheckpointError, match="ftp"):
        Publishing("ftp://me/adapter", private=True, message="").publish(tmp_path)


def test_a_token_is_in_no_repr_and_no_error(hf, tmp_path):
    (tmp_path / "a").write_text("1")
    publishing = Publishing("hf://me/adapter", private=True, message="", token="wrong-z9y8x7")
    assert "z9y8x7" not in repr(publishing)
    with pytest.raises(CheckpointError) as raised:
        publishing.publish(tmp_path)
    assert "z9y8x7" not in str(raised.value)


def test_hf_endpoint_says_which_hub(hf, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "config.json").write_text("{}")
    code = f"from twinkle.hub import upload_folder; print(upload_folder({str(tmp_path / 'folder')!r}, 'hf://me/adapter'))"
    environment = {"HF_ENDPOINT": hf.endpoint, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert arrived(hf) == {"config.json": b"{}"}
    assert TOKEN not in done.stdout + done.stderr
