"""Code from hubs is executed in one place, behind the door; ranks that torchrun starts stand before the same door."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
EXECUTING = {
    *("exec", "eval", "compile", "__import__", "import_module", "exec_module", "load_module", "run_path", "run_module"),
    *(
        "spec_from_file_location",
        "SourceFileLoader",
        "SourcelessFileLoader",
        "ExtensionFileLoader",
        "get_class_from_dynamic_module",
    ),
}
PLACES = {
    "registry/src/twinkle_registry/loader.py": "takes a Grant",
    "registry/src/twinkle_registry/hub_package.py": "the finder: takes a Grant, and bytes that were verified",
    "registry/src/twinkle_registry/hooks.py": "the hooks' specifications, which Twinkle itself names",
    "twinkle_core/src/twinkle/__init__.py": "names of this package",
    "twinkle_core/src/twinkle/kinds.py": "base classes of the kinds",
    "twinkle_core/src/twinkle/platform.py": "torch_npu",
    "twinkle_core/src/twinkle/testing/processes.py": "a test's own functions, in its child processes",
}
COMPONENT = {
    "twinkle.toml": b"""\
schema = 1
[plugin]
name = "ranked"
version = "1.0"
api = ">=1,<2"
[[component]]
kind = "loss"
name = "RankedLoss"
entry = "loss:RankedLoss"
""",
    "loss.py": b"""\
import os
from pathlib import Path
from twinkle.loss import Loss
Path(os.environ["MARKS"], os.environ.get("RANK", "alone")).touch()
class RankedLoss(Loss):
    gamma = 2
    def __call__(self, inputs, outputs, **kwargs):
        raise NotImplementedError
""",
}
RANK = """\
import os, sys
import torch.distributed as dist

dist.init_process_group("gloo")
sent = [None]
if dist.get_rank() == 0:
    from twinkle.component import make_component
    sent = [make_component("loss", "hf://acme/ranked@v1")]
else:
    os.environ["TWINKLE_HOME"] += "-of-another-machine"
    os.chdir(sys.argv[1])
try:
    dist.broadcast_object_list(sent)
    print(f"rank {dist.get_rank()}: {type(sent[0]).__name__} {sent[0].gamma}", flush=True)
except Exception as error:
    print(f"rank {dist.get_rank()}: {type(error).__name__} {error}", flush=True)
dist.barrier()
dist.destroy_process_group()
"""


def _calls(path: Path) -> set[str]:
    """The functions that execute code and that ``path`` calls, or takes to call later."""
    used = set()
    for node in ast.walk(ast.parse(path.read_text())):
        name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else None
        if isinstance(node, ast.Attribute) and name in ("compile", "eval"):  # re.compile, torch's model.eval
            continue
        if name in EXECUTING:
            used.add(name)
    return used


def test_no_other_module_executes_code_that_it_is_given():
    sources = [path for pattern in ("*/src", "plugins/*/src") for folder in CHECKOUT.glob(pattern) for path in folder.rglob("*.py")]
    found = {str(path.relative_to(CHECKOUT)) for path in sources if _calls(path)}
    assert found == set(PLACES)


@pytest.mark.parametrize("locked", [True, False], ids=["locked", "not locked"])
def test_ranks_of_torchrun_unpickle_by_digest_under_their_own_projects_lock(world, tmp_path: Path, locked: bool):
    world.hf.repositories.tag("acme/ranked", "v1", world.hf.repositories.commit("acme/ranked", COMPONENT))
    world.twinkle("hub", "add", "hf://acme/ranked@v1")
    (marks := tmp_path / "marks").mkdir()
    (elsewhere := tmp_path / "elsewhere").mkdir()
    (world.project / "rank.py").write_text(RANK)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "rank.py"]
    command.append(str(world.project if locked else elsewhere))
    environment = {**world.variables, "MARKS": str(marks)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=world.project, check=False, timeout=120)
    lines = dict(line.split(": ", 1) for line in done.stdout.splitlines() if line.startswith("rank "))
    assert lines["rank 0"] == "RankedLoss 2", done.stderr
    if locked:
        assert lines["rank 1"] == "RankedLoss 2", done.stderr
    else:
        assert lines["rank 1"].startswith("TrustError"), done.stderr
    assert sorted(path.name for path in marks.iterdir()) == (["0", "1"] if locked else ["0"])
