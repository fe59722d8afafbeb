"""The base model's folder: weights that are damaged, incomplete or pickled are refused, and a repository's code doesn't run."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Qwen3Config

from twinkle.errors import ConfigError, TrustError
from twinkle.model import TransformersModel


@pytest.fixture
def folder(config: Qwen3Config, tmp_path: Path) -> Path:
    saved = tmp_path / "base"
    AutoModelForCausalLM.from_config(config).save_pretrained(saved)
    return saved


def test_a_whole_folder_loads_with_the_weights_in_it(folder: Path):
    weights = load_file(folder / "model.safetensors")
    loaded = TransformersModel(model_id=str(folder), mixed_precision="no").get_state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in weights.items())


@pytest.mark.parametrize("kept", [0, 8, 2000])
def test_a_cut_file_is_named(folder: Path, kept: int):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(ConfigError, match=r"base.*model\.safetensors"):
        TransformersModel(model_id=str(folder))


def test_weights_that_lack_a_tensor_are_refused_by_its_name(folder: Path):
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"lack 1 tensors.*model\.layers\.1\.mlp\.up_proj\.weight"):
        TransformersModel(model_id=str(folder))


def test_pickled_weights_are_refused(folder: Path):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="safetensors"):
        TransformersModel(model_id=str(folder))


@pytest.mark.parametrize("asked", [None, False, True])
def test_code_in_a_models_repository_does_not_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: bool | None
):
    monkeypatch.delenv("TWINKLE_TRUST_REMOTE_CODE", raising=False)
    mark = tmp_path / "executed"
    (folder / "modeling_evil.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    settings = json.loads((folder / "config.json").read_text())
    settings |= {"model_type": "evil", "auto_map": {"AutoConfig": "modeling_evil.C", "AutoModelForCausalLM": "modeling_evil.M"}}
    (folder / "config.json").write_text(json.dumps(settings))
    options = {} if asked is None else {"trust_remote_code": asked}
    error, message = (TrustError, "brings code of its own") if asked else (ConfigError, "trust_remote_code")
    with pytest.raises(error, match=message):
        TransformersModel(model_id=str(folder), **options)
    assert not mark.exists()


def test_code_that_a_model_takes_from_another_repository_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TWINKLE_TRUST_REMOTE_CODE", "1")
    settings = json.loads((folder / "config.json").read_text())
    settings |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil/elsewhere--modeling.C"}}
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(TrustError, match="from another repository"):
        TransformersModel(model_id=str(folder), trust_remote_code=True)


@pytest.fixture
def elsewhere(config: Qwen3Config, tmp_path: Path) -> Path:
    """Another model's folder, whose code leaves ``tmp_path / "executed"`` behind."""
    saved = tmp_path / "elsewhere"
    AutoModelForCausalLM.from_config(config).save_pretrained(saved)
    (saved / "modeling_evil.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w').close()\n")
    settings = json.loads((saved / "config.json").read_text())
    auto_map = {"AutoConfig": "modeling_evil.C", "AutoModelForCausalLM": "modeling_evil.M"}
    (saved / "config.json").write_text(json.dumps(settings | {"model_type": "evil", "auto_map": auto_map}))
    return saved


def test_an_adapter_does_not_bring_the_code_of_its_base_model(elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TWINKLE_TRUST_REMOTE_CODE", "1")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(elsewhere), "peft_type": "LORA"}))
    with pytest.raises(TrustError, match=r"another repository.*base_model_name_or_path"):
        TransformersModel(model_id=str(adapter), trust_remote_code=True)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("with_folder", [True, False])
def test_a_config_does_not_bring_the_code_of_another_repository(
    folder: Path, elsewhere: Path, config: Qwen3Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_folder: bool
):
    monkeypatch.setenv("TWINKLE_TRUST_REMOTE_CODE", "1")
    config.auto_map = {"AutoModelForCausalLM": f"{elsewhere}--modeling_evil.M"}
    with pytest.raises(TrustError, match=r"another repository.*auto_map"):
        TransformersModel(model_id=str(folder) if with_folder else None, config=config, trust_remote_code=True)
    assert not (tmp_path / "executed").exists()
