"""``twinkle hub``: readable for people, JSON for programs, and nothing of a repository is executed."""

import json
import os
import subprocess
import sys
import textwrap

import pytest

from twinkle.cli.app import run
from twinkle.component import default_registry
from twinkle.errors import TrustError
from twinkle_registry.lock import LockFile

MANIFEST = """
schema = 1
[plugin]
name = "focal"
version = "1.2.0"
api = ">=1,<2"
requires = ["pydantic>=2"]
license = "MIT"
summary = "focal loss"
[[component]]
kind = "loss"
name = "FocalLoss"
entry = "parts:FocalLoss"
pure = true
"""

PARTS = """
import subprocess
from twinkle.loss import Loss

class FocalLoss(Loss):
    def __call__(self, inputs, outputs, **kwargs): raise NotImplementedError
"""


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """A project with a component in the folder ``focal``, as the working folder."""
    folder = tmp_path / "project"
    (folder / "focal").mkdir(parents=True)
    (folder / "twinkle.toml").write_text('schema = 1\n[alias]\nfocal = "file://./focal"\n')
    (folder / "focal" / "twinkle.toml").write_text(MANIFEST)
    (folder / "focal" / "parts.py").write_text(PARTS)
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TWINKLE_HOME", str(tmp_path / "home"))
    for name in ("TWINKLE_OFFLINE", "HF_HUB_OFFLINE", "TWINKLE_LOCKED", "TWINKLE_POLICY", "TWINKLE_TRUST_REMOTE_CODE"):
        monkeypatch.delenv(name, raising=False)
    default_registry.cache_clear()
    yield folder
    default_registry.cache_clear()


@pytest.fixture
def twinkle(capsys):
    """Run ``twinkle hub``; what it prints, and its exit status."""

    def call(*arguments: str, code: int = 0) -> str:
        with pytest.raises(SystemExit) as exited:
            run(["hub", *arguments])
        printed = capsys.readouterr()
        assert exited.value.code == code, printed
        return printed.out if code == 0 or printed.out else printed.err

    return call


@pytest.fixture
def data(twinkle):
    """Run ``twinkle hub … --json``; what it prints, read."""
    return lambda *arguments, code=0: json.loads(twinkle(*arguments, "--json", code=code))


def change(project, text: str = "x = 1\n") -> None:
    with (project / "focal" / "parts.py").open("a") as file:
        file.write(text)


def test_info_shows_whose_it_is_what_is_in_it_and_what_it_may(twinkle, project):
    text = twinkle("info", "file://./focal")
    for shown in (f"owner: file://{project}", "commit: ", "digest: sha256:", "focal 1.2.0 MIT", "pydantic>=2", "parts.py ("):
        assert shown in text
    assert "loss FocalLoss (pure)" in text
    assert "parts.py:2 " in text  # the import of subprocess
    assert "loss: may not be loaded" in text
    assert "twinkle hub add" in text


def test_info_for_programs_holds_the_same(data, project):
    found = data("info", "file://./focal")
    assert found["owner"] == f"file://{project}/focal"
    assert [row["path"] for row in found["files"]] == ["parts.py", "twinkle.toml"]
    assert found["needs"] == ["pydantic>=2"]
    assert "subprocess" in {row["capability"] for row in found["findings"]}
    assert [(row["kind"], row["allowed"]) for row in found["decisions"]] == [("loss", False)]


def test_info_doesnt_send_to_itself(data):
    (row,) = data("info", "file://./focal")["decisions"]
    assert "twinkle hub add file://./focal" in row["why"]
    assert "twinkle hub info" not in row["why"]


def test_info_tells_what_allows_a_component(data, twinkle):
    twinkle("add", "file://./focal")
    (row,) = data("info", "file://./focal")["decisions"]
    assert row["allowed"]
    assert "twinkle.lock" in row["why"]


def test_info_shows_control_characters_instead_of_obeying_them(twinkle, project):
    manifest = MANIFEST.replace('"focal loss"', r'"nice\u001b[2K\u202e [red]loss"')
    (project / "focal" / "twinkle.toml").write_text(manifest)
    text = twinkle("info", "file://./focal")
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert r"nice\x1b[2K\u202e [red]loss" in text


def test_what_is_installed_is_no_repository(twinkle):
    assert "FocalLoss" in twinkle("info", "FocalLoss", code=1)


def test_add_shows_and_pins_a_component(twinkle, project):
    text = twinkle("add", "file://./focal")
    assert "digest: sha256:" in text
    assert f"locked component file://{project}/focal at " in text
    (entry,) = LockFile.read(project / "twinkle.lock").components
    assert (entry.reference, entry.kinds) == (f"file://{project}/focal", ("loss",))
    assert 'reference = "file://./focal"' in (project / "twinkle.lock").read_text()


def test_add_takes_an_alias_of_the_project(twinkle, project):
    twinkle("add", "focal")
    assert LockFile.read(project / "twinkle.lock").components[0].reference == f"file://{project}/focal"


def test_add_makes_the_lock_beside_the_projects_file(twinkle, project, monkeypatch):
    (project / "deeper").mkdir()
    monkeypatch.chdir(project / "deeper")
    twinkle("add", "file://../focal")
    assert (project / "twinkle.lock").is_file()


def test_what_was_added_can_be_loaded_and_what_wasnt_can_not(twinkle):
    with pytest.raises(TrustError, match="twinkle hub add"):
        default_registry().load("loss", "file://./focal")
    twinkle("add", "file://./focal")
    default_registry.cache_clear()
    assert default_registry().load("loss", "file://./focal").__name__ == "FocalLoss"


def test_add_pins_models_and_data_sets_with_their_patterns(data, project):
    found = data("add", "--model", "file://./model", "--dataset", "file://./model", "--allow", "*.json", "--digest")
    assert [row["table"] for row in found["entries"]] == ["model", "dataset"]
    (model,) = LockFile.read(project / "twinkle.lock").models
    assert (model.reference, model.allow_patterns) == (f"file://{project}/model", ("*.json",))
    assert model.digest == found["entries"][0]["digest"] is not None


def test_add_that_cant_be_understood_says_so(twinkle):
    assert "Name a component" in twinkle("add", code=2)
    assert "name exactly one REF" in twinkle("add", "a://b/c", "d://e/f", "--mirror", "g://h/i", code=2)


def test_nothing_is_written_where_one_of_several_fails(twinkle, project):
    twinkle("add", "file://./focal", "file://./nothing", code=1)
    assert not (project / "twinkle.lock").exists()


def test_add_and_update_are_refused_where_only_the_lock_counts(twinkle, project, monkeypatch):
    twinkle("add", "file://./focal")
    before = (project / "twinkle.lock").read_bytes()
    monkeypatch.setenv("TWINKLE_LOCKED", "1")
    change(project)
    for command in (["add", "file://./focal"], ["lock", "--update"]):
        assert "TWINKLE_LOCKED" in twinkle(*command, code=1)
    assert (project / "twinkle.lock").read_bytes() == before


def test_lock_shows_what_moved_and_writes_only_when_told(twinkle, data, project):
    twinkle("add", "file://./focal")
    before = (project / "twinkle.lock").read_bytes()
    assert "0 of 1 entries have moved" in twinkle("lock")
    change(project)
    assert f"moved component file://{project}/focal" in twinkle("lock")
    found = data("lock")
    assert (found["written"], found["entries"][0]["moved"]) == (False, True)
    assert (project / "twinkle.lock").read_bytes() == before
    assert data("lock", "--update")["written"]
    entry = LockFile.read(project / "twinkle.lock").components[0]
    assert entry.digest == found["entries"][0]["after"]["digest"] != found["entries"][0]["before"]["digest"]
    assert "0 of 1" in twinkle("lock")


def test_verify_is_content_with_what_is_as_it_was_locked(data, twinkle):
    twinkle("add", "file://./focal", "--model", "file://./model")
    found = data("verify", "--remote")
    assert found["ok"]
    assert [row["state"] for row in found["entries"]] == ["ok"] * 4


def test_verify_fails_where_the_reference_has_moved(data, twinkle, project):
    twinkle("add", "file://./focal")
    change(project)
    assert data("verify")["ok"]  # the locked bytes are stored, whatever the folder holds now
    found = data("verify", "--remote", code=1)
    assert [row["state"] for row in found["entries"]] == ["ok", "moved"]


def test_verify_fails_where_a_model_was_changed_on_disk(twinkle, project):
    twinkle("add", "--model", "file://./model")
    (project / "model" / "config.json").write_text("{1}")
    assert "changed model" in twinkle("verify", code=1)


def test_a_damaged_component_is_found_and_sync_mends_it(data, twinkle, tmp_path):
    twinkle("add", "file://./focal")
    (file,) = (tmp_path / "home" / "components" / "sha256").glob("*/parts.py")
    file.chmod(0o644)
    file.write_text("evil = 1\n")
    assert data("verify", code=1)["entries"][0]["state"] == "changed"
    assert data("sync")["entries"][0]["state"] == "fetched"
    assert data("verify")["ok"]


def test_sync_fails_where_the_locked_bytes_can_not_be_had(data, twinkle, project, monkeypatch, tmp_path):
    twinkle("add", "file://./focal")
    change(project)
    monkeypatch.setenv("TWINKLE_HOME", str(tmp_path / "elsewhere"))
    assert data("verify")["entries"][0]["state"] == "missing"
    found = data("sync", code=1)
    assert found["entries"][0]["state"] in ("failed", "changed")


def test_an_empty_lock_says_what_would_fill_it(twinkle):
    assert "twinkle hub add REF" in twinkle("sync")


def test_diff_shows_what_changed_since_it_was_locked(twinkle, data, project):
    twinkle("add", "file://./focal")
    assert "The files are the same." in twinkle("diff", "file://./focal")
    change(project, "gamma = 2\n")
    text = twinkle("diff", "file://./focal")
    assert "--- a/parts.py" in text
    assert "+gamma = 2" in text
    (row,) = data("diff", "file://./focal", "lock..main")["files"]
    assert (row["path"], row["change"]) == ("parts.py", "changed")


def test_diff_of_a_model_names_its_commits(data):
    found = data("diff", "file://./model", "main", "main", "--model")
    assert (found["before"], found["files"]) == (found["after"], [])


def test_diff_without_a_lock_names_the_ways_out(twinkle):
    assert "twinkle hub add" in twinkle("diff", "file://./focal", code=1)
    assert "two revisions" in twinkle("diff", "file://./focal", "a", "b", "c", code=2)


def test_nothing_is_executed(twinkle, project, tmp_path):
    trap = tmp_path / "executed"
    (project / "focal" / "__init__.py").write_text(f"open({str(trap)!r}, 'w')\n")
    (project / "focal" / "parts.py").write_text(f"open({str(trap)!r}, 'w')\n")
    for command in ("info", "add", "diff"):
        twinkle(command, "file://./focal")
    for command in ("lock", "sync", "verify"):
        twinkle(command)
    assert not trap.exists()


def test_locked_is_an_option_of_every_command(project, tmp_path):
    """In a process of its own: the option is for the whole process."""
    code = "import sys; from twinkle.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "--locked", "hub", "add", "file://./focal"], capture_output=True, text=True, env=os.environ
    )
    assert (done.returncode, "TWINKLE_LOCKED" in done.stderr) == (1, True)


def test_eight_processes_that_add_at_once_lose_nothing(project):
    names = [f"part{number}" for number in range(8)]
    for name in names:
        (project / name).mkdir()
        (project / name / "twinkle.toml").write_text(MANIFEST)
        (project / name / "parts.py").write_text(f"# {name}\n")
    code = "import sys; from twinkle.cli.app import run; run(['hub', 'add', f'file://./{sys.argv[1]}'])"
    running = [subprocess.Popen([sys.executable, "-c", code, name], stdout=subprocess.DEVNULL) for name in names]
    assert [process.wait(120) for process in running] == [0] * 8
    found = {entry.reference for entry in LockFile.read(project / "twinkle.lock").components}
    assert found == {f"file://{project}/{name}" for name in names}


def test_the_commands_import_nothing_heavy_until_they_run():
    code = textwrap.dedent("""
        import sys
        import twinkle.cli.hub
        heavy = {"pydantic", "huggingface_hub", "modelscope_hub", "filelock", "twinkle_registry.locking"}
        print(sorted(heavy & set(sys.modules)))
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
