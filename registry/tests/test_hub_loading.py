"""Components from hubs: fetched whole, hashed, executed as hashed, side by side."""

from __future__ import annotations

import importlib
import json
import logging
import os
import pickle
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from twinkle_hub.digest import digest_of_bytes
from twinkle_hub.errors import HubError
from twinkle_registry.errors import (
    AmbiguousComponentError,
    ComponentNotFoundError,
    ConfigError,
    ManifestError,
    PluginLoadError,
    TrustError,
)
from twinkle_registry.project import Project
from twinkle_registry.store import ComponentStore

pytestmark = pytest.mark.usefixtures("trusted")

MANIFEST = """\
schema = 1
[plugin]
name = "focal"
version = "1.2"
api = ">=1,<2"
[[component]]
kind = "loss"
name = "FocalLoss"
entry = "parts.loss:FocalLoss"
config.gamma = { type = "float", min = 0 }
"""
LOSS = """\
from ..settings import GAMMA


class FocalLoss:
    gamma = GAMMA

    def fail(self):
        raise ValueError("on purpose")  # this line is shown
"""


def focal(write, name: str = "focal", gamma: int = 2, manifest: str = MANIFEST, **more: str) -> Path:
    files = {"twinkle.toml": manifest, "parts/loss.py": LOSS, "settings.py": f"GAMMA = {gamma}\n", **more}
    return write(name, **files)


def test_a_component_of_a_repository_is_loaded_with_its_relative_imports(make_registry, write):
    before = list(sys.path)
    loaded = make_registry().load("loss", f"file://{focal(write)}")
    assert (loaded.__name__, loaded.gamma) == ("FocalLoss", 2)
    assert loaded.__module__.startswith("twinkle._hub.sha256_")
    assert sys.path == before


def test_the_folder_in_the_store_is_named_by_the_digest_of_its_files(make_registry, write, home: Path):
    folder = focal(write, **{"README.md": "about", ".gitattributes": "x"})
    loaded = make_registry().load("loss", f"file://{folder}")
    files = {path: (folder / path).read_bytes() for path in ("twinkle.toml", "parts/loss.py", "settings.py")}
    digest = digest_of_bytes(files)
    assert loaded.__module__ == f"twinkle._hub.sha256_{digest}.parts.loss"
    assert [path.name for path in (home / "components" / "sha256").iterdir()] == [digest]


def test_two_revisions_live_side_by_side(make_registry, write):
    registry = make_registry()
    old = registry.load("loss", f"file://{focal(write, 'old', gamma=1)}")
    new = registry.load("loss", f"file://{focal(write, 'new', gamma=2)}")
    assert (old.gamma, new.gamma) == (1, 2)
    assert old.__module__ != new.__module__


def test_in_one_process_a_reference_stands_for_one_thing(make_registry, write):
    registry = make_registry()
    reference = f"file://{focal(write)}"
    first = registry.load("loss", reference)
    focal(write, gamma=5)
    assert registry.load("loss", reference) is first
    assert make_registry().load("loss", reference).gamma == 5


def test_a_second_plugin_does_not_return_the_first_ones_class(make_registry, write):
    class Base:
        pass

    sys.modules["acme_base"] = type(sys)("acme_base")
    sys.modules["acme_base"].Base = Base
    registry = make_registry(base_class=lambda kind: Base)
    source = "from acme_base import Base\nclass {0}(Base): pass\n"
    loaded = [
        registry.load("loss", f"file://{write(name, **{'__init__.py': source.format(name)})}") for name in ("First", "Second")
    ]
    assert [found.__name__ for found in loaded] == ["First", "Second"]
    del sys.modules["acme_base"]


def test_the_component_may_be_named(make_registry, write):
    folder = focal(write)
    registry = make_registry()
    assert registry.load("loss", f"file://{folder}/FocalLoss").__name__ == "FocalLoss"
    with pytest.raises(ComponentNotFoundError, match=r"has no metric\. Its components: loss FocalLoss"):
        registry.load("metric", f"file://{folder}")


def test_of_several_components_one_has_to_be_named(make_registry, write):
    second = '[[component]]\nkind = "loss"\nname = "Other"\nentry = "settings:GAMMA"\n'
    folder = focal(write, manifest=MANIFEST + second)
    with pytest.raises(AmbiguousComponentError, match="/FocalLoss or /Other"):
        make_registry().load("loss", f"file://{folder}")
    assert make_registry().load("loss", f"file://{folder}/Other") == 2


def test_a_mirror_is_used_for_components(make_registry, write):
    registry = make_registry(project=Project(mirror={"ms://acme/focal": str(focal(write))}))
    assert registry.load("loss", "ms://acme/focal/FocalLoss").gamma == 2


def test_a_digest_in_the_reference_is_checked(make_registry, write, home: Path):
    folder = focal(write)
    digest = ComponentStore(home).add(folder)
    assert make_registry().load("loss", f"file://{folder}#sha256:{digest}").gamma == 2
    with pytest.raises(TrustError, match=f"sha256:{'0' * 64} was asked for, and sha256:{digest} arrived"):
        make_registry().load("loss", f"file://{folder}#sha256:{'0' * 64}")


def test_what_is_pinned_and_stored_is_not_fetched_again(make_registry, write, home: Path):
    digest = ComponentStore(home).add(focal(write))
    assert make_registry().load("loss", f"hf://acme/focal/FocalLoss#sha256:{digest}").gamma == 2


def test_the_configuration_is_checked_against_the_repositorys_manifest(make_registry, write):
    reference = f"file://{focal(write)}"
    registry = make_registry()
    registry.check_config("loss", reference, {"gamma": 1.5})
    with pytest.raises(ConfigError, match=r"'FocalLoss'.*unknown key 'gama'\. Did you mean 'gamma'"):
        registry.check_config("loss", reference, {"gama": 1})


def test_requirements_of_a_repository_are_checked_before_its_code_runs(make_registry, write):
    folder = focal(write, manifest=MANIFEST.replace("[[", 'requires = ["no-such-package"]\n[[', 1), **{"__init__.py": "1 / 0"})
    with pytest.raises(PluginLoadError, match=r"needs no-such-package \(not installed\)"):
        make_registry().load("loss", f"file://{folder}")


@pytest.mark.parametrize(
    ("files", "error", "cause"),
    [
        ({"twinkle.toml": "schema = 1\nx = 1\n"}, ManifestError, r"twinkle.toml:2: x: unknown key"),
        ({"data.json": "{}"}, ComponentNotFoundError, r"neither a twinkle.toml nor an __init__.py"),
        ({"__init__.py": "1 / 0"}, PluginLoadError, "raised ZeroDivisionError"),
        ({"__init__.py": "class A: pass"}, PluginLoadError, "no class in __init__.py that derives from collections.abc.Sized"),
        (
            {"__init__.py": "class A:\n def __len__(s): ...\nclass B:\n def __len__(s): ..."},
            PluginLoadError,
            "Say which, after the repository's name: /A or /B",
        ),
    ],
)
def test_a_repository_that_holds_no_usable_component_is_named(make_registry, write, files, error, cause):
    from collections.abc import Sized

    folder = write("bad", **files)
    with pytest.raises(error, match=cause) as caught:
        make_registry(base_class=lambda kind: Sized).load("loss", f"file://{folder}")
    assert str(folder) in str(caught.value)


def test_the_older_layout_is_loaded(make_registry, write):
    from collections.abc import Sized

    text = "from .inner import Inner\nclass Outer(Inner):\n    pass\n"
    folder = write("older", **{"__init__.py": text, "inner.py": "class Inner:\n    def __len__(self): return 0\n"})
    registry = make_registry(base_class=lambda kind: Sized)
    assert registry.load("patch", f"file://{folder}").__name__ == "Outer"
    assert registry.load("patch", f"file://{folder}/Inner").__name__ == "Inner"


def test_a_class_that_is_only_taken_from_another_file_is_found_in_the_older_layout(make_registry, write):
    from collections.abc import Sized

    folder = write(
        "older", **{"__init__.py": "from .inner import Inner\n", "inner.py": "class Inner:\n    def __len__(self): return 0\n"}
    )
    assert make_registry(base_class=lambda kind: Sized).load("patch", f"file://{folder}").__name__ == "Inner"


@pytest.mark.parametrize("target", ["/etc/passwd", "settings.py", "parts"])
def test_symlinks_are_refused(make_registry, write, home: Path, target: str):
    folder = focal(write)
    (folder / "link.py").symlink_to(target)
    with pytest.raises((PluginLoadError, HubError), match="symlink"):
        make_registry().load("loss", f"file://{folder}")
    assert not list((home / "components" / "sha256").glob("*"))


def test_special_files_are_refused(write, home: Path):
    folder = focal(write)
    os.mkfifo(folder / "pipe")
    with pytest.raises(PluginLoadError, match="special file"):
        ComponentStore(home).add(folder)
    assert list((home / "components" / "sha256").iterdir()) == []


def test_the_links_of_hugging_faces_cache_are_followed(write, home: Path):
    plain = focal(write)
    snapshot = write("cache", **{"snapshots/abc/keep": ""}) / "snapshots" / "abc"
    (snapshot / "keep").unlink()
    blobs = snapshot.parent.parent / "blobs"
    blobs.mkdir()
    for path in ("twinkle.toml", "settings.py"):
        (blobs / path).write_bytes((plain / path).read_bytes())
        (snapshot / path).symlink_to(f"../../blobs/{path}")
    (snapshot / "parts").mkdir()
    (snapshot / "parts" / "loss.py").write_text(LOSS)
    store = ComponentStore(home)
    assert store.add(snapshot) == store.add(plain)


def test_the_bytes_that_were_hashed_are_executed(make_registry, write, home: Path):
    registry = make_registry()
    registry.load("loss", f"file://{focal(write)}")
    (stored,) = (home / "components" / "sha256").iterdir()
    (stored / "settings.py").write_text("GAMMA = 666\n")
    (stored / "late.py").write_text("")
    name = f"twinkle._hub.sha256_{stored.name}"
    sys.modules.pop(f"{name}.settings")
    assert importlib.import_module(f"{name}.settings").GAMMA == 2
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(f"{name}.late")


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_text("GAMMA = 666\n"),
        lambda file: file.unlink(),
        lambda file: file.with_name("more.txt").write_text("added"),
        lambda file: file.with_name("link.py").symlink_to(file),
    ],
    ids=["changed", "removed", "added", "symlink"],
)
def test_a_damaged_folder_in_the_store_is_not_executed_and_then_fetched_anew(make_registry, write, home: Path, damage):
    folder = focal(write)
    digest = ComponentStore(home).add(folder)
    damage(home / "components" / "sha256" / digest / "settings.py")
    reference = f"file://{folder}#sha256:{digest}"
    with pytest.raises(PluginLoadError, match="changed or damaged"):
        make_registry().load("loss", reference)
    assert list((home / "components" / "sha256").iterdir()) == []
    assert make_registry().load("loss", reference).gamma == 2


def test_a_module_with_an_odd_name_is_served_from_the_verified_bytes_too(make_registry, write, home: Path):
    source = "import importlib\nclass FocalLoss:\n    def odd(self): return importlib.import_module('..odd-name', __package__).x"
    loaded = make_registry().load("loss", f"file://{focal(write, **{'parts/loss.py': source, 'odd-name.py': 'x = 1'})}")
    (stored,) = (home / "components" / "sha256").iterdir()
    (stored / "odd-name.py").write_text("x = 666")
    assert loaded().odd() == 1


@pytest.mark.parametrize("name", ["sha256_" + "A" * 64, "sha256_" + "a" * 63, "other"])
def test_no_other_finder_is_asked_for_what_lies_below_the_parent(make_registry, write, name: str):
    make_registry().load("loss", f"file://{focal(write)}")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(f"twinkle._hub.{name}")
    with pytest.raises(ModuleNotFoundError):
        sys.meta_path[0].find_spec(f"twinkle._hub.{name}", ["/"])


def test_an_absolute_import_of_its_own_file_is_explained(make_registry, write):
    folder = focal(write, **{"parts/loss.py": "from settings import GAMMA\nclass FocalLoss: pass"})
    with pytest.raises(PluginLoadError, match=r"'settings' is its own file.*from \.settings import"):
        make_registry().load("loss", f"file://{folder}")


def test_a_traceback_shows_the_source(make_registry, write):
    loaded = make_registry().load("loss", f"file://{focal(write)}")
    with pytest.raises(ValueError, match="on purpose") as caught:
        loaded().fail()
    assert "# this line is shown" in "".join(traceback.format_exception(caught.value))


def test_data_files_are_reached_as_package_resources(make_registry, write):
    from importlib.resources import files

    loaded = make_registry().load("loss", f"file://{focal(write, **{'parts/words.json': '[1]'})}")
    root = files(loaded.__module__.removesuffix(".parts.loss"))
    assert json.loads((root / "parts" / "words.json").read_text()) == [1]


def test_an_instance_pickles_within_the_process(make_registry, write):
    loaded = make_registry().load("loss", f"file://{focal(write)}")
    assert type(pickle.loads(pickle.dumps(loaded()))) is loaded


@pytest.mark.parametrize(("value", "allowed"), [("1", True), ("0", False)])
def test_an_instance_unpickles_in_a_new_process_that_is_allowed_to_load_it(
    make_registry, write, home: Path, tmp_path: Path, value: str, allowed: bool
):
    loaded = make_registry().load("loss", f"file://{focal(write)}")
    (tmp_path / "instance").write_bytes(pickle.dumps(loaded()))
    code = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')).gamma)"
    environment = {**os.environ, "TWINKLE_HOME": str(home), "TWINKLE_TRUST_REMOTE_CODE": value}
    command = [sys.executable, "-c", code, str(tmp_path / "instance")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert (done.stdout.strip() == "2") is allowed
    assert ("TrustError" in done.stderr) is not allowed


def test_the_log_says_once_that_the_environment_allows_it(make_registry, write, caplog: pytest.LogCaptureFixture):
    reference = f"file://{focal(write)}"
    registry = make_registry()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            registry.load("loss", reference)
    assert len([record for record in caplog.records if "TWINKLE_TRUST_REMOTE_CODE" in record.message]) == 1


def test_processes_that_load_at_the_same_time_leave_one_whole_folder(write, home: Path, tmp_path: Path):
    folder = focal(write, **{f"data/{number}.txt": "x" * 1000 for number in range(50)})
    code = (
        "import sys; from pathlib import Path; from twinkle_registry.registry import Registry;"
        "print(Registry(home=Path(sys.argv[2])).load('loss', f'file://{sys.argv[1]}').gamma)"
    )
    command = [sys.executable, "-c", code, str(folder), str(home)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) for _ in range(3)]
    assert [process.communicate()[0].strip() for process in started] == ["2"] * 3
    assert len(list((home / "components" / "sha256").iterdir())) == 1


def test_two_older_repositories_with_one_class_name_do_not_collide(make_registry, write):
    registry = make_registry(base_class=lambda kind: dict)
    source = "from .settings import X\nclass Same(dict):\n    x = X\n"
    first, second = (
        registry.load("loss", f"file://{write(name, **{'__init__.py': source, 'settings.py': f'X = {name!r}'})}") for name in "ab"
    )
    assert (first.x, second.x) == ("a", "b")
    assert [type(pickle.loads(pickle.dumps(found()))) for found in (first, second)] == [first, second]
