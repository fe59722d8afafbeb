"""A hub's token stays with the hub's client: a whole story with a private repository, and then all that it wrote is searched."""

from pathlib import Path

from twinkle_hub.digest import digest_of_bytes

TOKEN = "sekret-of-the-test"
FILES = {
    "twinkle.toml": b"""\
schema = 1
[plugin]
name = "private"
version = "1.0"
api = ">=1,<2"
[[component]]
kind = "loss"
name = "PrivateLoss"
entry = "loss:PrivateLoss"
""",
    "loss.py": b"""\
from twinkle.loss import Loss
class PrivateLoss(Loss):
    def __call__(self, inputs, outputs, **kwargs):
        raise NotImplementedError
""",
}
WORKER = """\
import multiprocessing
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from twinkle.component import make_component
from twinkle.hub import download_model

def arguments(loss):
    import sys
    return type(loss).__module__, sys.argv, Path("/proc/self/cmdline").read_bytes()

if __name__ == "__main__":
    loss = make_component("loss", "hf://acme/private")
    download_model("hf://acme/weights")
    Path("sent.pickle").write_bytes(bytes(ForkingPickler.dumps(loss)))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.apply(arguments, (loss,)))
"""


def test_a_token_is_in_no_lock_log_error_cache_or_workers_arguments(world, tmp_path: Path):
    world.hf.repositories.commit("acme/private", FILES, private=True)
    world.hf.repositories.commit("acme/weights", {"config.json": b"{}", "model.safetensors": b"1"}, private=True)
    assert world.twinkle("hub", "info", "hf://acme/private", check=False).returncode == 1  # without the token it isn't shown
    (world.project / "worker.py").write_text(WORKER)
    run_worker = "import runpy, sys; sys.argv = ['worker.py']; runpy.run_path('worker.py', run_name='__main__')"
    stories = [
        ("info", "hf://acme/private"),
        ("add", "hf://acme/private"),
        ("add", "--model", "hf://acme/weights", "--digest"),
        ("sync", "--json"),
        ("verify", "--remote"),
        ("info", "hf://acme/missing"),
        ("diff", "hf://acme/private", "main..nowhere"),
    ]
    debug = {"HF_TOKEN": TOKEN, "HF_HUB_VERBOSITY": "debug"}
    shown = [world.twinkle("hub", *story, check=False, **debug) for story in stories]
    assert [done.returncode for done in shown] == [0, 0, 0, 0, 0, 1, 1]
    shown.append(world.python(run_worker, **debug))
    shown.append(world.twinkle("plugins", "doctor", "--json", check=False, **debug))
    assert f"sha256_{digest_of_bytes(FILES)}" in shown[-2].stdout
    assert TOKEN not in "".join(done.stdout + done.stderr for done in shown)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"twinkle.lock", "sent.pickle", "loss.py", "model.safetensors"} <= {path.name for path in written}
    assert [path for path in written if TOKEN.encode() in path.read_bytes()] == []
