"""Bad input, as a trainer meets it: the error names the offender and the way out, and what was there stays as it was."""

import functools
import json
from pathlib import Path

import pytest
from peft import LoraConfig

from twinkle import DeviceMesh, initialize
from twinkle.dataset import Dataset, DatasetMeta
from twinkle.errors import AdapterError, CheckpointError, ComponentNotFoundError, DataError, ManifestError, MeshError, TrustError
from twinkle.model import TransformersModel
from twinkle.preprocessor import SelfCognitionProcessor
from twinkle.runtime import use_runtime

MODEL = "tiny://models/twinkle-tiny-qwen3"
LORA = functools.partial(LoraConfig, r=4, lora_alpha=8, target_modules="all-linear")


@pytest.fixture(scope="module")
def model() -> TransformersModel:
    made = TransformersModel(model_id=MODEL, mixed_precision="no")
    made.add_adapter_to_model("default", LORA())
    made.set_optimizer("AdamW", lr=1e-3)
    return made


@pytest.fixture
def rows() -> Dataset:
    return Dataset(DatasetMeta(data=[{"query": "Who are you?", "response": "{{NAME}} by {{AUTHOR}}"}, {"query": "And?"}]))


def _train(model: TransformersModel) -> float:
    loss = model.forward_backward(inputs=[{"input_ids": [5, 6, 7, 8], "labels": [-100, 6, 7, 8]}])["loss"]
    model.clip_grad_and_step()
    return float(loss)


def test_a_wrong_component_name_names_the_nearest(model: TransformersModel):
    with pytest.raises(
        ComponentNotFoundError, match=r"'CrossEntropyLos'.*'CrossEntropyLoss' \(twinkle-plugin-losses .*--kind loss"
    ):
        model.set_loss("CrossEntropyLos")
    assert _train(model) > 0


def test_hub_code_is_refused_and_the_message_says_what_would_allow_it(model: TransformersModel, tmp_path: Path, monkeypatch):
    monkeypatch.delenv("TWINKLE_TRUST_REMOTE_CODE", raising=False)
    mark = tmp_path / "executed"
    repository = tmp_path / "evil"
    repository.mkdir()
    (repository / "__init__.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    with pytest.raises(TrustError, match="TWINKLE_TRUST_REMOTE_CODE"):
        model.set_loss(f"file://{repository}")
    assert not mark.exists()


@pytest.mark.parametrize("no", ["0", "false", "no", "off", ""])
@pytest.mark.parametrize("take", [Dataset.map, Dataset.filter, Dataset.set_template])
def test_no_means_no_for_the_code_that_data_asks_for(rows: Dataset, tmp_path: Path, monkeypatch, no: str, take):
    monkeypatch.setenv("TWINKLE_TRUST_REMOTE_CODE", no)
    mark = tmp_path / "executed"
    repository = tmp_path / "evil"
    repository.mkdir()
    (repository / "__init__.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    with pytest.raises(TrustError, match="TWINKLE_TRUST_REMOTE_CODE=1"):
        take(rows, f"file://{repository}")
    assert not mark.exists()
    assert rows[1] == {"query": "And?"}


def test_a_loading_script_in_a_data_set_is_never_executed(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("TWINKLE_TRUST_REMOTE_CODE", "1")
    mark = tmp_path / "executed"
    folder = tmp_path / "scripted"
    folder.mkdir()
    (folder / "scripted.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    (folder / "train.jsonl").write_text('{"query": "Hi"}\n')
    assert list(Dataset(DatasetMeta(f"file://{folder}"))) == [{"query": "Hi"}]
    assert not mark.exists()


def test_an_unknown_key_in_the_projects_file_names_file_line_and_key(tmp_path: Path, monkeypatch):
    from twinkle_registry.project import find_project

    (tmp_path / "twinkle.toml").write_text('[mirror]\n"ms://a/b" = "/somewhere"\n\n[mirrors]\n')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ManifestError, match=r"twinkle\.toml:4: mirrors"):
        find_project()


def test_a_row_without_its_fields_is_named_with_the_fields_that_it_has(rows: Dataset):
    with pytest.raises(DataError, match=r"(?s)row 1.*response.*query"):
        rows.map(SelfCognitionProcessor("a", "b"))


def test_a_row_that_is_too_long_is_named_with_the_ways_out():
    dataset = Dataset(DatasetMeta(data=[{"query": "Hi", "response": "Yo"}, {"query": "Hi " * 300, "response": "Yo"}]))
    dataset.set_template("Template", model_id=MODEL, max_length=64)
    dataset.map(SelfCognitionProcessor("a", "b"))
    with pytest.raises(DataError, match=r"(?s)row 1.*64.*truncation_strategy"):
        dataset.encode()
    assert [list(row) for row in dataset] == [["messages"], ["messages"]]


def test_an_adapter_that_does_not_exist_is_named_beside_those_that_do(model: TransformersModel):
    with pytest.raises(AdapterError, match=r"'defualt'.*default"):
        model.forward_backward(inputs=[{"input_ids": [5, 6], "labels": [5, 6]}], adapter_name="defualt")
    assert _train(model) > 0


def test_an_adapter_that_exists_already_is_refused_and_stays(model: TransformersModel):
    before = {name: value.clone() for name, value in model.get_state_dict().items()}
    with pytest.raises(AdapterError, match="'default'"):
        model.add_adapter_to_model("default", LORA())
    after = model.get_state_dict()
    assert before.keys() == after.keys()
    assert all(value.equal(after[name]) for name, value in before.items())


@pytest.mark.parametrize("damage", ["cut", "missing"])
def test_a_checkpoint_cut_short_is_named_and_leaves_the_model_as_it_was(model: TransformersModel, tmp_path: Path, damage: str):
    _train(model)
    folder = model.save("checkpoint", output_dir=tmp_path)
    weights = folder / "adapter_model.safetensors"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-100])
    else:
        weights.unlink()
    before = {name: value.clone() for name, value in model.get_state_dict().items()}
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors"):
        model.resume_from_checkpoint(folder)
    assert all(value.equal(before[name]) for name, value in model.get_state_dict().items())
    assert _train(model) > 0


def test_saving_again_replaces_the_checkpoint_and_leaves_nothing_half_written(model: TransformersModel, tmp_path: Path):
    model.save("checkpoint", output_dir=tmp_path)
    _train(model)
    folder = model.save("checkpoint", output_dir=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
    assert json.loads((folder / "adapter_config.json").read_text())["r"] == 4


def test_a_mesh_that_does_not_fit_the_world_is_refused_with_both_sizes():
    with use_runtime(None), pytest.raises(MeshError, match=r"(?s)2.*1"):
        initialize(mode="local", global_device_mesh=DeviceMesh.from_sizes(dp_size=2))
    with pytest.raises(MeshError, match=r"8.*3"):
        DeviceMesh.from_sizes(world_size=8, tp_size=3)
