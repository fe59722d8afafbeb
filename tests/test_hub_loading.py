"""Components by hub ID, end to end: real clients, loopback hubs, every program in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from twinkle_hub.digest import digest_of_bytes

FOCAL = {
    "twinkle.toml": b"""\
schema = 1
[plugin]
name = "acme-focal"
version = "1.0"
api = ">=1,<2"
license = "MIT"
summary = "Focal loss"
[[component]]
kind = "loss"
name = "FocalLoss"
entry = "loss:FocalLoss"
config.gamma = { type = "float", default = 2.0, min = 0, doc = "focusing strength" }
""",
    "loss.py": b"""\
from twinkle.loss import Loss, LossOutput

from .strength import DEFAULT


class FocalLoss(Loss):
    require_logps = True

    def __init__(self, gamma=DEFAULT):
        self.gamma = gamma

    def __call__(self, inputs, outputs, **kwargs):
        mask = inputs["labels"] != -100
        logps = outputs["logps"]
        loss = -(((1 - logps.exp()) ** self.gamma) * logps * mask).sum()
        return LossOutput(loss=loss, num_tokens=mask.sum())
""",
    "strength.py": b"DEFAULT = 2.0\n",
    "README.md": b"# Focal loss\n",
}
PROCESSOR = {
    "twinkle.toml": b"""\
schema = 1
[plugin]
name = "my-processor"
version = "1.0"
api = ">=1,<2"
[[component]]
kind = "preprocessor"
name = "Shout"
entry = "shout:Shout"
pure = true
""",
    "shout.py": b"""\
from twinkle.preprocessor import Preprocessor


class Shout(Preprocessor):
    def preprocess(self, row):
        return {"messages": [{"role": "user", "content": row["text"].upper()}]}
""",
}
TRAIN = """
import sys
from transformers import Qwen3Config
from twinkle.model import TransformersModel

config = Qwen3Config(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, head_dim=16,
                     intermediate_size=32, vocab_size=64)
model = TransformersModel(config=config, mixed_precision='no')
model.set_optimizer('AdamW', lr=1e-3)
"""
LOAD = """
import sys
from twinkle.component import load_component
found = load_component(sys.argv[1], sys.argv[2])
print(found.__module__, found.__name__)
"""


def legacy_patch(name: str, mark: str, where: str = "__init__.py") -> dict[str, bytes]:
    """A repository of the older layout: a class in ``__init__.py``, no manifest."""
    patch = f"""\
from twinkle.patch import Patch

from .constants import MARK


class {name}(Patch):
    def __call__(self, module, *args, **kwargs):
        module.marks = [*getattr(module, "marks", []), MARK]

    def unpatch(self, module, *args, **kwargs):
        module.marks.remove(MARK)
"""
    return {where: patch.encode(), "constants.py": f"MARK = {mark!r}\n".encode(), "README.md": b"# A patch\n"}


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def digest(files: dict[str, bytes]) -> str:
    return digest_of_bytes({path: content for path, content in files.items() if path != "README.md"})


@pytest.fixture
def focal(world) -> str:
    """``hf://acme/focal@v1``, which another commit follows."""
    world.hf.repositories.tag("acme/focal", "v1", world.hf.repositories.commit("acme/focal", FOCAL))
    world.hf.repositories.commit("acme/focal", {**FOCAL, "strength.py": b"DEFAULT = 5.0\n"})
    return "hf://acme/focal@v1"


def test_a_loss_by_hub_id_trains_once_the_lock_allows_it(world, focal: str):
    program = f"""{TRAIN}
model.set_loss({focal!r}, gamma=1.5)
row = {{'input_ids': [1, 2, 3, 4], 'labels': [-100, 2, 3, 4]}}
losses = [float(model.forward_backward(inputs=[row])['loss'])]
model.clip_grad_and_step()
losses.append(float(model.forward_backward(inputs=[row])['loss']))
assert losses[1] < losses[0], losses
try:
    model.set_loss({focal!r}, gamma=-1.0)
except ValueError as error:
    assert 'gamma' in str(error)
    print('trained')
"""
    refused = world.python(program, check=False)
    assert "TrustError" in refused.stderr
    assert f"twinkle hub add {focal}" in refused.stderr
    world.twinkle("hub", "add", focal)
    assert world.python(program).stdout.strip().endswith("trained")


def test_an_alias_of_the_project_leads_to_the_hub(world, focal: str):
    world.project_file(alias={"focal": focal})
    world.twinkle("hub", "add", focal)
    shown = world.python(LOAD, "loss", "focal").stdout
    assert shown.split() == [f"twinkle._hub.sha256_{digest(FOCAL)}.loss", "FocalLoss"]


def test_patches_of_the_older_layout_are_applied_and_two_of_them_dont_collide(world):
    first, second = legacy_patch("MoePatch", "first"), legacy_patch("MoePatch", "second")
    world.ms.repositories.commit("twinkle-kit/qwen3_moe_transformers4_patch", first)
    world.ms.repositories.commit("acme/other_patch", second)
    references = ["ms://twinkle-kit/qwen3_moe_transformers4_patch", "ms://acme/other_patch"]
    for reference in references:
        world.twinkle("hub", "add", reference)
    program = f"""{TRAIN}
for reference in {references!r}:
    model.apply_patch(reference)
from twinkle.patch import apply_patch
class Module: pass
module = Module()
for reference in {references!r}:
    apply_patch(module, reference)
print(module.marks)
"""
    assert world.python(program).stdout.strip().endswith("['first', 'second']")


def test_a_class_taken_from_another_file_of_an_older_repository_is_found(world):
    files = {**legacy_patch("MoePatch", "inner", "inner.py"), "__init__.py": b"from .inner import MoePatch\n"}
    world.ms.repositories.commit("acme/inner", files)
    shown = world.python(LOAD, "patch", "ms://acme/inner", TWINKLE_TRUST_REMOTE_CODE="1").stdout
    assert shown.split() == [f"twinkle._hub.sha256_{digest(files)}.inner", "MoePatch"]


def test_a_preprocessor_in_a_folder_maps_a_data_set(world):
    write(world.project / "my-processor", PROCESSOR)
    (world.project / "rows.jsonl").write_text('{"text": "hello"}\n{"text": "there"}\n')
    program = """
from twinkle.dataset import Dataset, DatasetMeta
dataset = Dataset(dataset_meta=DatasetMeta('rows.jsonl'))
dataset.map('file://./my-processor')
print([row['messages'][0]['content'] for row in dataset])
"""
    refused = world.python(program, check=False)
    assert "TrustError" in refused.stderr
    world.twinkle("hub", "add", "file://./my-processor")
    assert world.python(program).stdout.strip().endswith("['HELLO', 'THERE']")
    assert str(world.project) not in (world.project / "twinkle.lock").read_text()


def test_the_same_files_have_the_same_digest_on_every_hub_and_one_entry_in_the_store(world, focal: str):
    # Each hub adds files of its own to what an author uploads.
    world.ms.repositories.commit(
        "acme/focal", {**FOCAL, "configuration.json": b"{}", "README.md": b"another", ".gitattributes": b"x"}
    )
    folder = write(world.project / "copy", FOCAL)
    for reference in (focal, "ms://acme/focal", f"file://{folder}"):
        shown = world.python(LOAD, "loss", reference, TWINKLE_TRUST_REMOTE_CODE="1").stdout
        assert shown.split()[0] == f"twinkle._hub.sha256_{digest(FOCAL)}.loss"
    assert [path.name for path in (world.home / "components" / "sha256").iterdir()] == [digest(FOCAL)]


def test_what_one_hub_pins_a_mirror_serves(world, focal: str):
    world.twinkle("hub", "add", focal)
    world.ms.repositories.tag("acme/focal", "v1", world.ms.repositories.commit("acme/focal", FOCAL))
    world.project_file(mirror={"hf://acme/focal": "ms://acme/focal"})
    asked = len(world.hf.requests)
    shown = world.python(LOAD, "loss", focal, TWINKLE_HOME=str(world.home.parent / "elsewhere")).stdout
    assert digest(FOCAL) in shown
    assert len(world.hf.requests) == asked


def test_the_same_run_is_possible_tomorrow_offline_from_the_lock(world, focal: str):
    world.twinkle("hub", "add", focal)
    asked = len(world.hf.requests)
    shown = world.python(LOAD, "loss", focal, TWINKLE_OFFLINE="1", TWINKLE_LOCKED="1").stdout
    assert digest(FOCAL) in shown
    assert len(world.hf.requests) == asked


def test_the_same_run_is_possible_elsewhere_after_sync(world, focal: str):
    world.twinkle("hub", "add", focal)
    other = {"TWINKLE_HOME": str(world.home.parent / "other"), "HF_HOME": str(world.home.parent / "other-hf")}
    offline = world.python(LOAD, "loss", focal, check=False, TWINKLE_OFFLINE="1", **other)
    assert offline.returncode == 1
    assert focal in offline.stderr
    world.twinkle("hub", "sync", **other)
    assert digest(FOCAL) in world.python(LOAD, "loss", focal, TWINKLE_OFFLINE="1", **other).stdout


def test_locked_forbids_what_the_lock_doesnt_name(world, focal: str):
    done = world.python(LOAD, "loss", focal, check=False, TWINKLE_LOCKED="1", TWINKLE_TRUST_REMOTE_CODE="1")
    assert done.returncode == 1
    assert f"twinkle hub add {focal}" in done.stderr


UNPICKLE = """
import multiprocessing, pickle, sys
from twinkle.component import make_component

def gamma(loss):
    return loss.gamma, type(loss).__module__

if __name__ == '__main__':
    loss = make_component('loss', sys.argv[1], gamma=3.0)
    with multiprocessing.get_context('spawn').Pool(1) as pool:
        print(*pool.apply(gamma, [loss]))
"""


def test_a_spawned_process_unpickles_by_digest(world, focal: str):
    world.twinkle("hub", "add", focal)
    script = world.project / "spawn.py"
    script.write_text(UNPICKLE)
    done = subprocess.run(
        [sys.executable, script, focal], capture_output=True, text=True, env=world.variables, cwd=world.project, check=False
    )
    assert done.stdout.split() == ["3.0", f"twinkle._hub.sha256_{digest(FOCAL)}.loss"], done.stderr


def test_a_process_whose_cache_is_cold_unpickles_by_digest_from_the_locks_sources(world, focal: str, tmp_path: Path):
    world.twinkle("hub", "add", focal)
    save = "import pickle, sys; from twinkle.component import make_component\n"
    save += "open(sys.argv[2], 'wb').write(pickle.dumps(make_component('loss', sys.argv[1])))"
    world.python(save, focal, str(tmp_path / "loss.pickle"))
    read = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')).gamma)"
    cold = {"TWINKLE_HOME": str(tmp_path / "cold"), "HF_HOME": str(tmp_path / "cold-hf")}
    assert world.python(read, str(tmp_path / "loss.pickle"), **cold).stdout.strip() == "2.0"
    (world.project / "twinkle.lock").unlink()
    cold = {"TWINKLE_HOME": str(tmp_path / "colder"), "HF_HOME": str(tmp_path / "colder-hf")}
    asked = len(world.hf.requests)
    done = world.python(read, str(tmp_path / "loss.pickle"), check=False, **cold)
    assert "TrustError" in done.stderr
    assert len(world.hf.requests) == asked


@pytest.mark.parametrize(
    ("value", "allowed"),
    [
        ("1", True),
        ("true", True),
        ("YES", True),
        ("0", False),
        ("false", False),
        ("", False),
        ("no", False),
        ("never", False),
        (None, False),
    ],
)
def test_what_the_variable_means(world, focal: str, value: str | None, allowed: bool):
    variables = {} if value is None else {"TWINKLE_TRUST_REMOTE_CODE": value}
    done = world.python(LOAD, "loss", focal, check=False, **variables)
    assert (done.returncode == 0) is allowed, done.stderr
    assert ("TWINKLE_TRUST_REMOTE_CODE" in done.stderr) or not allowed
    assert bool(world.hf.requests) is allowed


def test_two_revisions_live_side_by_side(world, focal: str):
    program = """
from twinkle.component import make_component
print(*[make_component('loss', f'hf://acme/focal@{revision}').gamma for revision in ('v1', 'main')])
"""
    for reference in (focal, "hf://acme/focal@main"):
        world.twinkle("hub", "add", reference)
    assert world.python(program).stdout.split() == ["2.0", "5.0"]


def test_a_program_without_a_terminal_is_told_the_command_and_never_asked(world, focal: str):
    done = world.python(LOAD, "loss", focal, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    for command in (f"twinkle hub add {focal}", f"twinkle hub trust {focal}"):
        assert command in done.stderr
    assert world.hf.requests == []


def test_trusting_an_owner_for_a_kind_allows_that_and_no_more(world, focal: str):
    world.hf.repositories.commit("stranger/focal", FOCAL | {"strength.py": b"DEFAULT = 9.0\n"})
    world.twinkle("hub", "trust", "--owner", "hf://acme", "--kind", "loss")
    assert digest(FOCAL) in world.python(LOAD, "loss", focal).stdout
    assert world.python(LOAD, "loss", "hf://stranger/focal", check=False).returncode == 1
    world.twinkle("hub", "revoke", "hf://acme")
    assert world.python(LOAD, "loss", focal, check=False).returncode == 1


def test_an_operators_policy_decides_before_the_user_and_the_environment(world, focal: str, tmp_path: Path):
    policy = tmp_path / "policy.toml"
    policy.write_text('schema = 1\ndefault = "deny"\n[[deny]]\nowner = "hf://acme"\nreason = "under review"\n')
    world.twinkle("hub", "add", focal)
    variables = {"TWINKLE_POLICY": str(policy), "TWINKLE_TRUST_REMOTE_CODE": "1"}
    done = world.python(LOAD, "loss", focal, check=False, **variables)
    assert "under review" in done.stderr
    explained = world.twinkle("policy", "explain", focal, check=False, TWINKLE_POLICY=str(policy)).stdout
    assert "under review" in explained


def test_trace_says_what_a_reference_stands_for_and_executes_nothing(world, focal: str):
    world.project_file(alias={"focal": focal})
    world.twinkle("hub", "add", focal)
    asked = len(world.hf.requests)
    steps = json.loads(world.twinkle("plugins", "trace", "--kind", "loss", "focal", "--json").stdout)["traces"][0]["steps"]
    told = {step["step"]: step["result"] for step in steps}
    assert told["alias"] == focal
    assert digest(FOCAL) in told["lock"]
    assert len(world.hf.requests) == asked


def test_doctor_finds_the_lock_adrift_and_says_what_mends_it(world, focal: str):
    world.twinkle("hub", "add", focal)
    elsewhere = {"TWINKLE_HOME": str(world.home.parent / "elsewhere")}
    rows = json.loads(world.twinkle("plugins", "doctor", "--json", check=False, **elsewhere).stdout)
    [drift] = [row for row in rows if row["subject"] == focal]
    assert drift["status"] == "warning"
    assert "twinkle hub sync" in drift["message"]
    world.twinkle("hub", "sync", **elsewhere)
    rows = json.loads(world.twinkle("plugins", "doctor", "--json", check=False, **elsewhere).stdout)
    assert not [row for row in rows if row["subject"] == focal]


def test_the_commands_of_the_trainers_guide_work(world, focal: str):
    world.ms.repositories.tag("acme/focal", "v1", world.ms.repositories.commit("acme/focal", FOCAL))
    world.twinkle("hub", "add", focal, "--mirror", "ms://acme/focal@v1")
    assert 'mirrors = ["ms://acme/focal@' in (world.project / "twinkle.lock").read_text()
    moved = world.hf.repositories.commit("acme/focal", {**FOCAL, "strength.py": b"DEFAULT = 7.0\n"})
    world.hf.repositories.tag("acme/focal", "v1", moved)
    assert moved in world.twinkle("hub", "lock", check=False).stdout
    assert "DEFAULT = 7.0" in world.twinkle("hub", "diff", focal, check=False).stdout
    for command in (["sync"], ["verify"], ["gc", "--older-than", "30", "--dry-run"]):
        world.twinkle("hub", *command)
    pinned = json.loads(world.twinkle("plugins", "trace", "--json").stdout)["components"]
    assert [row["file"] for row in pinned if row["allowed"] == "locked"] == [
        str(world.home / "components" / "sha256" / digest(FOCAL))
    ]


def test_the_policy_of_the_operators_guide_is_valid_and_explained(world, checkout: Path, focal: str):
    guide = (checkout / "docs" / "operators.md").read_text()
    policy = world.project / "policy.toml"
    policy.write_text(guide.partition("```toml\n")[2].partition("```")[0])
    world.twinkle("policy", "check", str(policy))
    world.hf.repositories.commit("acme/old-focal", FOCAL)
    explained = world.twinkle("policy", "explain", "hf://acme/old-focal", "--kind", "loss", check=False, TWINKLE_POLICY=str(policy))
    assert "replaced by acme/focal" in explained.stdout
    refused = world.python(
        LOAD, "loss", "hf://acme/old-focal", check=False, TWINKLE_POLICY=str(policy), TWINKLE_TRUST_REMOTE_CODE="1"
    )
    assert "replaced by acme/focal" in refused.stderr
    impure = world.python(LOAD, "loss", focal, check=False, TWINKLE_POLICY=str(policy))
    assert impure.returncode == 1  # it doesn't declare itself pure
    pure = {**FOCAL, "twinkle.toml": FOCAL["twinkle.toml"].replace(b"config.gamma", b"pure = true\nconfig.gamma")}
    world.hf.repositories.commit("acme/pure", pure)
    assert digest(pure) in world.python(LOAD, "loss", "hf://acme/pure", TWINKLE_POLICY=str(policy)).stdout
