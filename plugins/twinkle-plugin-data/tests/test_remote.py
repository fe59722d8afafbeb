"""Data sets and loaders behind a stand-in, with workers that are objects in this process but get only what pickles."""

import pickle

import pytest

from twinkle.dataloader import DataLoader
from twinkle.dataset import Dataset, DatasetMeta, LazyDataset
from twinkle.device_mesh import DeviceMesh
from twinkle.errors import DataError
from twinkle.preprocessor import SelfCognitionProcessor
from twinkle.remote import workers_of
from twinkle.runtime import Runtime, RuntimeSettings, Workers, use_runtime

ROWS = [{"query": f"q{number}", "response": "{{NAME}}"} for number in range(10)]


class Sent(Workers):
    """One worker; arguments and results are copied as between processes. ``returned`` holds what came back."""

    def __init__(self, instance):
        self.instance = instance
        self.returned = []

    def call(self, spec, args, kwargs):
        assert (spec.execute, spec.lazy_collect) == ("first", False)
        args, kwargs = pickle.loads(pickle.dumps((args, kwargs)))
        with use_runtime(None):
            result = pickle.loads(pickle.dumps(getattr(self.instance, spec.name)(*args, **kwargs)))
        self.returned.append(result)
        return result


class OneElsewhere(Runtime):
    has_workers = True

    def create_workers(self, component, args, kwargs, *, execute, remote_group, device_mesh):
        assert execute == "first"
        with use_runtime(None):
            return Sent(component(*args, **kwargs, device_mesh=device_mesh))

    def placements(self):
        return [{"rank": 0, "device": "cpu"}]

    def close(self):
        pass


@pytest.fixture(autouse=True)
def elsewhere():
    with use_runtime(OneElsewhere(RuntimeSettings(mode="elsewhere"))):
        yield


@pytest.mark.parametrize("cls", [Dataset, LazyDataset])
def test_steps_chain_and_rows_are_those_of_a_data_set_here(cls):
    def built(**where):
        dataset = cls(DatasetMeta(data=ROWS), **where)
        return dataset.add_dataset(DatasetMeta(data=ROWS[:3])).map(SelfCognitionProcessor("Nova", "Ada")).mix_dataset()

    there, here = built(remote_group="data"), built()
    assert workers_of(there) is not None
    assert workers_of(here) is None
    assert list(there) == list(here)
    assert there[-1] == here[-1]
    assert there[2:5] == here[2:5]
    assert there.where(3) == here.where(3)


def test_no_step_sends_the_rows_back():
    dataset = (
        Dataset(DatasetMeta(data=ROWS), remote_group="data")
        .map(SelfCognitionProcessor("Nova", "Ada"))
        .mix_dataset(interleave=False)
    )
    assert workers_of(dataset).returned == [None, None]


def test_a_row_that_fails_there_is_named_here():
    with pytest.raises(DataError, match="row 4 of 'data in memory'"):
        Dataset(DatasetMeta(data=[*ROWS[:4], {"query": "q"}]), remote_group="data").map(SelfCognitionProcessor("Nova", "Ada"))


def test_a_loader_there_gives_the_batches_of_one_here_and_resumes():
    mesh = DeviceMesh.from_sizes()

    def loader(**where):
        return DataLoader(ROWS, batch_size=4, shuffle=True, device_mesh=mesh, **where)

    there, here = loader(remote_group="data"), loader()
    assert len(there) == len(here) == 3
    expected = list(here)
    passing = iter(there)
    assert next(passing) == expected[0]
    resumed = loader(remote_group="data")
    resumed.resume_from_checkpoint(there.get_state())
    assert list(resumed) == list(passing) == expected[1:]
    assert list(there) == list(here)
