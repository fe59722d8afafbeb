"""Attacks that must fail: each gets a clear error, and no code of the component runs before it.

The components make a file, the canary, when they are executed. Each test also shows that the same component, untouched, does run.
"""

import hashlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from twinkle_hub.digest import digest_of_bytes
from twinkle_hub.errors import TwinkleError
from twinkle_hub.hubs import Hubs
from twinkle_hub.huggingface import HfHub
from twinkle_hub.local import FileHub
from twinkle_hub.modelscope import MsHub
from twinkle_hub.testing import Fault, HfServer
from twinkle_hub.testing.loopback import Reply, Request
from twinkle_registry.errors import AmbiguousComponentError, ManifestError, PluginLoadError, TrustError
from twinkle_registry.hub_package import HubFinder
from twinkle_registry.lock import LOCK, LockedComponent, LockFile
from twinkle_registry.project import find_project
from twinkle_registry.registry import Registry

MANIFEST = """\
schema = 1
[plugin]
name = "focal"
version = "1.0"
api = ">=1,<2"
[[component]]
kind = "loss"
name = "FocalLoss"
entry = "loss:FocalLoss"
"""
SOURCE = """\
from pathlib import Path
Path({canary!r}).write_text({mark!r})
class FocalLoss:
    mark = {mark!r}
"""


@pytest.fixture
def component(world) -> Callable[..., dict[str, bytes]]:
    """The files of a component that leaves ``mark`` in the canary when it is executed."""

    def files(mark: str = "harmless", manifest: str = MANIFEST, **more: str) -> dict[str, bytes]:
        source = SOURCE.format(canary=str(world.canary), mark=mark)
        texts = {"twinkle.toml": manifest, "loss.py": source, **{key.replace("__SLASH__", "/"): more[key] for key in more}}
        return {path: text.encode() for path, text in texts.items()}

    return files


@pytest.fixture
def make_registry(world, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[], Registry]]:
    """A registry as a new process would make it, in this one: no hub code is loaded, and the world's hubs are the only ones."""
    for name in ("TWINKLE_TRUST_REMOTE_CODE", "TWINKLE_OFFLINE", "TWINKLE_LOCKED", "HF_HUB_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name in ("TWINKLE_HOME", "TWINKLE_POLICY", "MODELSCOPE_HOME"):
        monkeypatch.setenv(name, world.variables[name])
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr("modelscope_hub._download.DOWNLOAD_INTEGRITY_RETRY_BACKOFF", 0)
    monkeypatch.chdir(world.project)

    def make() -> Registry:
        _forget()
        registry = Registry(path=[], home=world.home, project=find_project(world.project))
        hf = HfHub(endpoint=world.hf.endpoint, cache_dir=tmp_path / "hf", token=False)
        registry.hubs = Hubs([hf, MsHub(endpoint=world.ms.endpoint, cache_dir=tmp_path / "ms"), FileHub()])
        return registry

    yield make
    _forget()


def _forget() -> None:
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, HubFinder)]
    for name in [name for name in sys.modules if name.startswith("twinkle._hub")]:
        del sys.modules[name]


@pytest.fixture
def lock(world) -> Callable[..., str]:
    """Pin a reference in the project's lock, the way ``twinkle hub add`` does after somebody has read the code."""

    def pin(reference: str, commit: str, files: dict[str, bytes], **more: object) -> str:
        digest = digest_of_bytes(files)
        entry = LockedComponent(reference, commit, digest, ("loss",), **more)
        LockFile.read(world.project / LOCK).with_component(entry).save()
        return digest

    return pin


def refused(world, registry: Registry, reference: str, error: type[TwinkleError] = TrustError) -> str:
    """The message with which ``reference`` is refused; nothing of it was executed."""
    with pytest.raises(error) as raised:
        registry.load("loss", reference)
    assert not world.canary.exists(), f"{world.canary.read_text()} code was executed before: {raised.value}"
    return str(raised.value)


def test_the_canary_sings_when_the_code_is_allowed(world, make_registry, component, lock):
    files = component()
    lock("hf://acme/focal@v1", commit := world.hf.repositories.commit("acme/focal", files), files)
    world.hf.repositories.tag("acme/focal", "v1", commit)
    assert make_registry().load("loss", "hf://acme/focal@v1").mark == "harmless"
    assert world.canary.read_text() == "harmless"


def test_what_nothing_allows_is_refused_before_a_byte_is_asked_for(world, make_registry, component):
    world.hf.repositories.commit("acme/focal", component())
    message = refused(world, make_registry(), "hf://acme/focal")
    assert "twinkle hub add hf://acme/focal" in message
    assert "twinkle hub trust hf://acme/focal" in message
    assert world.hf.requests == []


def test_a_repository_that_changes_after_it_was_locked(world, make_registry, component, lock):
    files = component()
    lock("hf://acme/focal", world.hf.repositories.commit("acme/focal", files), files)
    world.hf.repositories.commit("acme/focal", component("evil"))
    assert make_registry().load("loss", "hf://acme/focal").mark == "harmless"
    assert world.canary.read_text() == "harmless"


def test_a_hub_that_serves_other_bytes_for_a_locked_commit(world, make_registry, component, lock):
    files = component()
    commit = world.hf.repositories.commit("acme/focal", files)
    digest = lock("hf://acme/focal", commit, files)
    world.hf.repositories.get("acme/focal", "model").commits[commit] = component("evil")
    message = refused(world, make_registry(), "hf://acme/focal")
    assert "changed after it was locked" in message
    assert digest[:12] in message


def test_a_moved_tag(world, make_registry, component, lock):
    files = component()
    commit = world.hf.repositories.commit("acme/focal", files)
    world.hf.repositories.tag("acme/focal", "v1", commit)
    lock("hf://acme/focal@v1", commit, files)
    world.hf.repositories.tag("acme/focal", "v1", world.hf.repositories.commit("acme/focal", component("evil")))
    assert make_registry().load("loss", "hf://acme/focal@v1").mark == "harmless"
    assert world.canary.read_text() == "harmless"


def test_a_moved_tag_whose_old_commit_is_gone(world, make_registry, component, lock):
    files = component()
    commit = world.hf.repositories.commit("acme/focal", files)
    lock("hf://acme/focal@v1", commit, files)
    evil = world.hf.repositories.commit("acme/focal", component("evil"))
    world.hf.repositories.tag("acme/focal", "v1", evil)
    del world.hf.repositories.get("acme/focal", "model").commits[commit]
    assert commit in refused(world, make_registry(), "hf://acme/focal@v1", TwinkleError)


def test_a_file_edited_in_the_cache(world, make_registry, component, lock):
    files = component()
    digest = lock("hf://acme/focal", world.hf.repositories.commit("acme/focal", files), files)
    make_registry().load("loss", "hf://acme/focal")
    world.canary.unlink()
    stored = world.home / "components" / "sha256" / digest
    edit(stored / "loss.py", component("evil")["loss.py"])
    assert "changed or damaged" in refused(world, make_registry(), "hf://acme/focal", PluginLoadError)
    assert make_registry().load("loss", "hf://acme/focal").mark == "harmless"


def test_a_compiled_file_put_into_the_cache_is_never_looked_at(world, make_registry, component, lock, tmp_path: Path):
    import importlib.util
    import py_compile

    files = component()
    digest = lock("hf://acme/focal", world.hf.repositories.commit("acme/focal", files), files)
    make_registry().load("loss", "hf://acme/focal")
    source = world.home / "components" / "sha256" / digest / "loss.py"
    evil = tmp_path / "loss.py"
    evil.write_bytes(component("evil")["loss.py"])
    compiled = Path(importlib.util.cache_from_source(str(source)))
    source.parent.chmod(0o755)
    compiled.parent.mkdir(exist_ok=True)
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(evil), str(compiled), dfile=str(source), invalidation_mode=mode)
    world.canary.unlink()
    assert make_registry().load("loss", "hf://acme/focal").mark == "harmless"
    assert world.canary.read_text() == "harmless"


def edit(file: Path, content: bytes) -> None:
    """Write to a file of the store, which is read-only."""
    file.parent.chmod(0o755)
    file.chmod(0o644)
    file.write_bytes(content)


class Redirecting(HfServer):
    """Sends whoever asks for a file to another host."""

    elsewhere = ""

    def answer(self, request: Request) -> Reply:
        if "resolve" in request.segments:
            return Reply(302, b"", {"Location": self.elsewhere + request.path})
        return super().answer(request)


def test_a_redirect_to_another_host_that_serves_other_bytes(world, make_registry, component, lock, tmp_path: Path):
    files = component()
    with Redirecting(token="sekret-of-the-test") as front, HfServer() as back:
        # The client takes another name of the same machine for another host.
        front.elsewhere = back.endpoint.replace("127.0.0.1", "localhost")
        commit = front.repositories.commit("acme/focal", files)
        back.repositories.commit("acme/focal", component("evil"))
        back.repositories.get("acme/focal", "model").commits[commit] = component("evil")
        lock("hf://acme/focal", commit, files)
        registry = make_registry()
        registry.hubs = Hubs([HfHub(endpoint=front.endpoint, cache_dir=tmp_path / "hf2", token="sekret-of-the-test")])
        message = refused(world, registry, "hf://acme/focal", TwinkleError)
        assert not [request for request in back.requests if "sekret" in str(request.headers)], "the token was sent on"
    assert "sekret" not in message
    assert "hf://acme/focal" in message


def test_a_mirror_with_other_bytes(world, make_registry, component, lock):
    files = component()
    lock("hf://acme/focal", world.hf.repositories.commit("acme/focal", files), files)
    world.ms.repositories.commit("acme/focal", component("evil"))
    world.project_file(mirror={"hf://acme/focal": "ms://acme/focal"})
    message = refused(world, make_registry(), "hf://acme/focal")
    assert "ms://acme/focal" in message or "hf://acme/focal" in message


def test_a_mirror_in_the_lock_with_other_bytes(world, make_registry, component, lock):
    files = component()
    commit = world.hf.repositories.commit("acme/focal", files)
    other = world.ms.repositories.commit("acme/focal", component("evil"))
    lock("hf://acme/focal", commit, files, mirrors=(f"ms://acme/focal@{other[:8]}",))
    world.hf.faults.append(Fault("", status=503))
    refused(world, make_registry(), "hf://acme/focal", TwinkleError)


@pytest.mark.parametrize(
    "claim",
    [
        'trusted = true\n[[component]]\nkind = "loss"\nname = "FocalLoss"\nentry = "loss:FocalLoss"\n',
        '[[allow]]\nowner = "hf://acme"\n',
        '[trust]\nallow = ["hf://acme"]\n',
        "[plugin.trust]\nallow = true\n",
    ],
)
def test_a_manifest_that_grants_itself_trust(world, make_registry, component, monkeypatch: pytest.MonkeyPatch, claim: str):
    head, _, rest = MANIFEST.partition("[[component]]")
    manifest = head + claim if claim.startswith("trusted") else f"{head}[[component]]{rest}{claim}"
    world.hf.repositories.commit("acme/focal", component(manifest=manifest))
    refused(world, make_registry(), "hf://acme/focal")
    monkeypatch.setenv("TWINKLE_TRUST_REMOTE_CODE", "1")
    assert "unknown key" in refused(world, make_registry(), "hf://acme/focal", ManifestError)


@pytest.mark.parametrize("entry", ["os:system", "subprocess:run", "builtins:eval", "twinkle.component:load_component"])
def test_an_entry_outside_of_the_repository(world, make_registry, component, monkeypatch: pytest.MonkeyPatch, entry: str):
    world.hf.repositories.commit("acme/focal", component(manifest=MANIFEST.replace("loss:FocalLoss", entry)))
    monkeypatch.setenv("TWINKLE_TRUST_REMOTE_CODE", "1")
    assert "acme/focal" in refused(world, make_registry(), "hf://acme/focal", TwinkleError)


@pytest.mark.parametrize("entry", ["..os:system", "/os:system", "loss:FocalLoss.__init__.__globals__", "../../os:system", "os;x:y"])
def test_an_entry_that_is_no_modules_name(world, make_registry, component, monkeypatch: pytest.MonkeyPatch, entry: str):
    world.hf.repositories.commit("acme/focal", component(manifest=MANIFEST.replace("loss:FocalLoss", entry)))
    monkeypatch.setenv("TWINKLE_TRUST_REMOTE_CODE", "1")
    with pytest.raises(TwinkleError, match="acme/focal"):
        make_registry().load("loss", "hf://acme/focal")


def test_side_effects_of_importing_when_it_is_only_looked_at(world, make_registry, component):
    source = component("evil")["loss.py"].decode()
    files = component("evil", **{"__init__.py": source, "setup.py": source, "conftest.py": source, "sitecustomize.py": source})
    world.hf.repositories.commit("acme/focal", files)
    inspection = make_registry().inspect("hf://acme/focal")
    assert not world.canary.exists()
    assert {path for path, _ in inspection.files} == set(files)
    assert inspection.digest == digest_of_bytes(files)
    assert "files" in inspection.capabilities


@pytest.mark.parametrize("path", ["../evil.py", "a/../../evil.py", "/tmp/evil-{}.py", "a\\..\\evil.py"])
@pytest.mark.parametrize("hub", ["hf", "ms"])
def test_paths_that_lead_out_of_the_repository(
    world, make_registry, component, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hub: str, path: str
):
    path = path.format(tmp_path.name)
    files = {**component("evil"), path: b"evil"}
    getattr(world, hub).repositories.commit("acme/focal", files)
    monkeypatch.setenv("TWINKLE_TRUST_REMOTE_CODE", "1")
    refused(world, make_registry(), f"{hub}://acme/focal", TwinkleError)
    assert not list(tmp_path.rglob("*evil.py"))
    assert not Path(path).is_absolute() or not Path(path).exists()


@pytest.mark.parametrize("target", ["/etc/passwd", "loss.py", "."])
def test_symlinks(world, make_registry, component, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, target: str):
    folder = tmp_path / "repository"
    folder.mkdir()
    for path, content in component().items():
        (folder / path).write_bytes(content)
    (folder / "more").symlink_to(target)
    monkeypatch.setenv("TWINKLE_TRUST_REMOTE_CODE", "1")
    assert "symlink" in refused(world, make_registry(), f"file://{folder}", TwinkleError)


def test_a_first_partys_name_stays_the_first_partys(world, component):
    shadow = MANIFEST.replace('name = "FocalLoss"', 'name = "CrossEntropyLoss"')
    more = {"twinkle/loss.py": "1 / 0", "torch.py": "1 / 0", "twinkle/__init__.py": "1 / 0"}
    source = "import json\nfrom twinkle.loss import Loss\nclass FocalLoss(Loss):\n    def __call__(self, *a, **b): ...\n"
    world.hf.repositories.commit("acme/shadow", {**component(manifest=shadow, **more), "loss.py": source.encode()})
    code = """
from twinkle.component import load_component
assert load_component('loss', 'hf://acme/shadow/CrossEntropyLoss').__module__.startswith('twinkle._hub.')
assert load_component('loss', 'CrossEntropyLoss').__module__.startswith('twinkle_plugin_losses')
from twinkle.loss import CrossEntropyLoss
assert CrossEntropyLoss.__module__.startswith('twinkle_plugin_losses'), CrossEntropyLoss
"""
    world.python(code, TWINKLE_TRUST_REMOTE_CODE="1")


def test_an_installed_plugin_cant_take_a_first_partys_name_silently(world, make_registry, component, tmp_path: Path):
    site = tmp_path / "site"
    for distribution in ("twinkle_plugin_losses", "evil"):
        (site / distribution).mkdir(parents=True)
        for path, content in component(distribution).items():
            (site / distribution / path).write_bytes(content)
        metadata = site / f"{distribution}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Name: {distribution}\nVersion: 1.0\n\n")
        (metadata / "entry_points.txt").write_text(f"[twinkle.plugins]\nx = {distribution}\n")
    registry = Registry(path=[str(site)], home=world.home)
    assert "'evil/FocalLoss'" in refused(world, registry, "FocalLoss", AmbiguousComponentError)


def test_a_repository_that_another_owner_registers_anew_under_a_locked_name(world, make_registry, component, lock):
    gone = hashlib.sha1(b"deleted with its repository").hexdigest()
    lock("hf://acme/focal", gone, component())
    world.hf.repositories.commit("acme/focal", component("evil"))
    message = refused(world, make_registry(), "hf://acme/focal", TwinkleError)
    assert "hf://acme/focal" in message


def test_a_worker_asked_to_unpickle_an_unknown_digest(world):
    payload = f"ctwinkle._hub.sha256_{'ab' * 32}.loss\nFocalLoss\n.".encode()
    done = world.python(f"import pickle; pickle.loads({payload!r})", check=False)
    assert done.returncode == 1
    assert "TrustError" in done.stderr
    assert "ab" * 32 in done.stderr
    assert world.hf.requests == world.ms.requests == []


def test_a_worker_asked_to_unpickle_what_is_cached_and_not_allowed(world, component):
    files = component()
    world.hf.repositories.commit("acme/focal", files)
    world.twinkle("hub", "info", "hf://acme/focal")
    payload = f"ctwinkle._hub.sha256_{digest_of_bytes(files)}.loss\nFocalLoss\n.".encode()
    done = world.python(f"import pickle; pickle.loads({payload!r})", check=False)
    assert "TrustError" in done.stderr
    assert not world.canary.exists()
    world.python(f"import pickle; pickle.loads({payload!r})", TWINKLE_TRUST_REMOTE_CODE="1")
    assert world.canary.exists()


@pytest.mark.parametrize("name", ["sha256_{}.loss", "sha256_{}..loss", "sha256_{}", "focal"])
def test_a_pickle_cant_reach_around_the_finder(world, make_registry, component, name: str):
    files = component()
    world.hf.repositories.commit("acme/focal", files)
    registry = make_registry()
    registry.inspect("hf://acme/focal")
    module = f"twinkle._hub.{name.format(digest_of_bytes(files))}"
    payload = f"c{module}\nFocalLoss\n.".encode()
    done = world.python(f"import pickle; pickle.loads({payload!r})", check=False)
    assert done.returncode == 1
    assert not world.canary.exists()
