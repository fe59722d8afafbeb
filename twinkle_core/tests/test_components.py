"""Components by reference: what is accepted, what is refused, and what the refusal says."""

import functools
from pathlib import Path

import pytest

import twinkle.component
from twinkle.component import load_component, make_component
from twinkle.data_format import LossOutput
from twinkle.errors import AmbiguousComponentError, ComponentNotFoundError, ConfigError, PluginLoadError
from twinkle.loss import Loss
from twinkle.patch import Patch, apply_patch
from twinkle_registry.registry import Registry

LOSS = """
from twinkle.loss import Loss

class {name}(Loss):
    def __init__(self, gamma=2.0):
        self.gamma = gamma
    def __call__(self, inputs, outputs, **kwargs):
        return {{"loss": self.gamma, "num_tokens": 1.0}}
"""

MANIFEST = """
schema = 1
[plugin]
name = "{plugin}"
version = "1.0.0"
api = ">=1,<2"
license = "MIT"
summary = "made for a test"
[[component]]
kind = "loss"
name = "{name}"
entry = "loss:{entry}"
config.gamma = {{ type = "float", default = 2.0, min = 0, doc = "focus" }}
"""


def _install(site: Path, plugin: str, name: str, *, entry: str | None = None, source: str | None = None) -> None:
    package = f"twinkle_plugin_{plugin}"
    (site / package).mkdir(parents=True)
    (site / package / "__init__.py").write_text("")
    (site / package / "loss.py").write_text(source or LOSS.format(name=name))
    (site / package / "twinkle.toml").write_text(MANIFEST.format(plugin=plugin, name=name, entry=entry or name))
    info = site / f"{package}-1.0.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: twinkle-plugin-{plugin}\nVersion: 1.0.0\n")
    (info / "entry_points.txt").write_text(f"[twinkle.plugins]\n{plugin} = {package}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A folder of installed plugins that is all that this process's registry sees."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    registry = functools.cache(lambda: Registry(path=[str(folder)], home=tmp_path / "home"))
    monkeypatch.setattr(twinkle.component, "default_registry", registry)
    return folder


class MyLoss(Loss):
    def __init__(self, gamma: float = 2.0) -> None:
        self.gamma = gamma

    def __call__(self, inputs, outputs, **kwargs):
        return LossOutput(loss=self.gamma, num_tokens=1.0)


def test_an_instance_is_used_as_it_is():
    loss = MyLoss(3.0)
    assert make_component("loss", loss) is loss


def test_a_class_is_built_with_its_configuration():
    assert make_component("loss", MyLoss, gamma=1.5).gamma == 1.5


def test_a_function_is_taken_where_the_kind_allows_it_with_its_configuration_bound():
    def loss(inputs, outputs, scale=1.0, **kwargs):
        return scale

    assert make_component("loss", loss)(None, None) == 1.0
    assert make_component("loss", loss, scale=4.0)(None, None) == 4.0


def test_a_function_is_refused_where_the_kind_needs_a_class():
    with pytest.raises(ConfigError, match=r"A template has to be a class that derives from twinkle.template.BaseTemplate"):
        make_component("template", lambda rows: rows)


def test_an_instance_of_something_else_is_refused_where_the_kind_needs_a_class():
    class Callable_:
        def __call__(self):
            return None

    with pytest.raises(ConfigError, match=r"A template has to be a class that derives from twinkle.template.BaseTemplate"):
        make_component("template", Callable_())


def test_an_instance_refuses_configuration():
    with pytest.raises(ConfigError, match=r"MyLoss is already built.*gamma"):
        make_component("loss", MyLoss(), gamma=1.0)


def test_a_class_of_another_kind_is_refused_by_name():
    class Other:
        pass

    with pytest.raises(ConfigError, match=r"Other.*is no loss.*twinkle.loss.Loss"):
        make_component("loss", Other)


def test_configuration_that_the_signature_does_not_take_is_refused_with_the_signature():
    with pytest.raises(ConfigError, match=r"'MyLoss' can't be built.*gama.*MyLoss\(gamma"):
        make_component("loss", MyLoss, gama=1.0)


def test_a_bare_name_finds_the_installed_component(site: Path):
    _install(site, "focal_t1", "FocalLoss")
    assert make_component("loss", "FocalLoss", gamma=1.0).gamma == 1.0
    assert make_component("loss", "twinkle-plugin-focal_t1/FocalLoss").gamma == 2.0
    assert load_component("loss", "FocalLoss").__name__ == "FocalLoss"


def test_installed_components_can_be_imported_from_the_module_of_their_kind(site: Path):
    _install(site, "focal_t2", "ImportedFocalLoss")
    from twinkle.loss import ImportedFocalLoss

    assert issubclass(ImportedFocalLoss, Loss)
    import twinkle.loss

    assert "ImportedFocalLoss" in dir(twinkle.loss)


def test_a_wrong_name_names_the_nearest_and_the_command_that_lists_all(site: Path):
    _install(site, "focal_t3", "FocalLoss")
    with pytest.raises(ComponentNotFoundError) as caught:
        make_component("loss", "FocalLos")
    assert str(caught.value) == (
        "No loss named 'FocalLos'. Did you mean 'FocalLoss' (twinkle-plugin-focal_t3 1.0.0)? "
        "See all: twinkle plugins list --kind loss"
    )


def test_importing_a_wrong_name_gives_the_same_error(site: Path):
    _install(site, "focal_t4", "FocalLoss")
    with pytest.raises(ImportError, match="Did you mean 'FocalLoss'"):
        from twinkle.loss import FocalLos  # noqa: F401 - the import is what is tested


def test_one_name_in_two_plugins_is_an_error_that_lists_both(site: Path):
    _install(site, "one_t5", "FocalLoss")
    _install(site, "two_t5", "FocalLoss")
    with pytest.raises(AmbiguousComponentError, match=r"twinkle-plugin-one_t5/FocalLoss.*twinkle-plugin-two_t5/FocalLoss"):
        make_component("loss", "FocalLoss")


def test_configuration_outside_the_manifests_bounds_names_component_key_and_bound(site: Path):
    _install(site, "focal_t6", "FocalLoss")
    with pytest.raises(ConfigError, match=r"FocalLoss.*gamma.*-1"):
        make_component("loss", "FocalLoss", gamma=-1.0)


def test_a_plugin_that_raises_at_import_is_named_with_its_cause(site: Path):
    _install(site, "ill_t7", "IllLoss", source="raise RuntimeError('out of order')")
    _install(site, "well_t7", "WellLoss")
    with pytest.raises(PluginLoadError, match=r"twinkle-plugin-ill_t7.*out of order"):
        make_component("loss", "IllLoss")
    assert make_component("loss", "WellLoss").gamma == 2.0


def test_an_entry_that_is_not_there_is_named(site: Path):
    _install(site, "liar_t8", "LiarLoss", entry="NoSuchLoss", source="x = 1")
    with pytest.raises(PluginLoadError, match=r"twinkle-plugin-liar_t8.*NoSuchLoss"):
        make_component("loss", "LiarLoss")


class AddAttribute(Patch):
    def __call__(self, module, *args, **kwargs):
        module.patched = getattr(module, "patched", 0) or 1

    def unpatch(self, module, *args, **kwargs):
        del module.patched


def test_a_patch_is_applied_by_class_and_undone():
    class Module:
        pass

    module = apply_patch(Module(), AddAttribute)
    assert module.patched == 1
    AddAttribute().unpatch(module)
    assert not hasattr(module, "patched")
