"""Checkpoints are published by the hubs' own clients."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from twinkle.errors import CheckpointError, ConfigError
from twinkle_plugin_transformers.publishing import upload_folder

PUBLISH = """
import sys
from pathlib import Path
from twinkle_plugin_transformers.publishing import upload_folder
print(upload_folder(Path(sys.argv[1]), sys.argv[2], token="secret", private=True, message="Upload"))
"""


@pytest.fixture
def hub(shared, tmp_path) -> Iterator[tuple[str, Path]]:
    """A server on this machine that speaks Hugging Face's protocol: its address, and the folder that holds its repositories."""
    script = shared("prototypes/hubs/fakehub.py")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    root = tmp_path / "hub"
    with subprocess.Popen([sys.executable, str(script), str(port), str(root)], stdout=subprocess.DEVNULL) as server:
        try:
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                with socket.socket() as client:
                    if client.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}", root
        finally:
            server.terminate()


def test_a_checkpoint_arrives_as_it_is(make_model, hub, tmp_path):
    endpoint, root = hub
    folder = make_model().save("adapter", output_dir=tmp_path)
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", PUBLISH, str(folder), "hf://me/adapter"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "hf://me/adapter"
    arrived = root / "me" / "adapter"
    assert {path.name: path.read_bytes() for path in folder.iterdir()}.items() <= {
        path.name: path.read_bytes() for path in arrived.iterdir()
    }.items()


def test_only_a_whole_checkpoint_is_published(make_model, tmp_path):
    model = make_model()
    folder = model.save("adapter", output_dir=tmp_path)
    (folder / "adapter_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"adapter_config\.json is missing"):
        model.upload_to_hub(folder, "hf://me/adapter")


def test_a_hub_that_is_not_known_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="ftp"):
        upload_folder(tmp_path, "ftp://me/adapter", token=None, private=True, message="")
