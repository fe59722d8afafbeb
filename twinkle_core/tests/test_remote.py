"""remote_class and remote_function: classes stay what they are; calls are direct here and dispatched where there are workers."""

from __future__ import annotations

import inspect
import pickle
import time
from typing import Any

import pytest

from twinkle import DeviceMesh, remote_class, remote_function
from twinkle.dispatch import collect, dispatch
from twinkle.errors import ConfigError
from twinkle.remote import RemoteSpec, remote_spec, workers_of
from twinkle.runtime import Runtime, RuntimeSettings, Workers, use_runtime


@remote_class()
class Adder:
    """Adds."""

    def __init__(self, amount: int, *, times: int = 1):
        """Say how much."""
        self.amount = amount
        self.times = times

    @remote_function(dispatch="slice_dp", collect="flatten", data=("inputs",))
    def add(self, inputs: list[int], betas: tuple[float, ...] = ()) -> list[Any]:
        """Add it to each."""
        return [(row + self.amount * self.times, *betas) for row in inputs]

    @remote_function(execute="first")
    def name(self) -> str:
        return type(self).__name__

    def local(self) -> str:
        return "not remote"


@remote_class()
class MeshKeeper:
    def __init__(self, device_mesh=None):
        self.device_mesh = device_mesh


@remote_class()
class Forwarding(MeshKeeper):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)


@remote_class()
class Plain:
    pass


class ForgotToMark(Adder):
    def __init__(self, **kwargs):
        super().__init__(1, **kwargs)


@remote_class()
class ForgotAMethod(Adder):
    def add(self, inputs, betas=()):
        return []


class ManyHere(Runtime):
    """A runtime with workers that are objects in this process: what a cluster's runtime does, without the cluster."""

    has_workers = True

    def __init__(self, world_size: int) -> None:
        super().__init__(RuntimeSettings(mode="here"))
        self.workers = world_size

    def create_workers(self, component, args, kwargs, *, execute, remote_group, device_mesh):
        with use_runtime(None):
            return HereWorkers([component(*args, **kwargs, device_mesh=device_mesh) for _ in range(self.workers)], device_mesh)

    def placements(self):
        return [{"rank": 0, "device": "cpu"}]

    def close(self) -> None:
        pass


class HereWorkers(Workers):
    def __init__(self, instances: list[Any], mesh: DeviceMesh | None) -> None:
        self.instances = instances
        self.mesh = mesh

    def call(self, spec: RemoteSpec, args, kwargs):
        instances = self.instances[:1] if spec.execute == "first" else self.instances
        mesh = spec.mesh_for(self.mesh, len(instances))
        calls = dispatch(spec.dispatch, args, kwargs, mesh, len(instances), data=spec.data, parameters=spec.parameters)
        results = [getattr(each, spec.name)(*a, **k) for each, (a, k) in zip(instances, calls, strict=True)]
        return collect(spec.collect, results, mesh)


class TestIdentity:
    def test_it_is_the_class_itself(self):
        assert isinstance(Adder(1), Adder)
        assert Adder.__doc__ == "Adds."

    def test_signatures_and_docstrings_stay(self):
        assert str(inspect.signature(Adder)) == "(amount: 'int', *, times: 'int' = 1)"
        assert Adder.__init__.__doc__ == "Say how much."
        assert list(inspect.signature(Adder.add).parameters) == ["self", "inputs", "betas"]
        assert Adder.add.__doc__ == "Add it to each."
        assert Adder.add.__name__ == "add"

    def test_class_and_instance_pickle_by_reference(self):
        assert pickle.loads(pickle.dumps(Adder)) is Adder
        assert pickle.loads(pickle.dumps(Adder(3))).amount == 3

    def test_how_a_method_was_marked_can_be_read(self):
        spec = remote_spec(Adder.add)
        assert spec is not None
        assert (spec.dispatch, spec.collect, spec.data, spec.parameters) == (
            "slice_dp",
            "flatten",
            ("inputs",),
            ("inputs", "betas"),
        )
        assert remote_spec(Adder.local) is None


class TestHere:
    def test_a_call_is_a_direct_call(self):
        assert Adder(2, times=3).add([1, 2], betas=(0.9, 0.95)) == [(7, 0.9, 0.95), (8, 0.9, 0.95)]

    def test_remote_group_and_device_mesh_are_accepted_and_dropped(self):
        assert Adder(1, remote_group="model", device_mesh=DeviceMesh.from_sizes()).amount == 1
        assert isinstance(Plain(remote_group="model", device_mesh=DeviceMesh.from_sizes()), Plain)

    def test_the_device_mesh_goes_to_an_init_that_takes_it(self):
        mesh = DeviceMesh.from_sizes()
        assert MeshKeeper(device_mesh=mesh).device_mesh is mesh
        assert Forwarding(device_mesh=mesh, remote_group="g").device_mesh is mesh

    def test_other_keywords_are_an_error_as_ever(self):
        with pytest.raises(TypeError, match="colour"):
            Adder(1, colour="red")
        with pytest.raises(TypeError):
            Plain(1)

    def test_unmarked_subclasses_work(self):
        assert ForgotToMark(remote_group="g").add([1]) == [(2,)]

    def test_a_call_costs_little_more_than_a_plain_one(self):
        class Bare:
            @remote_function()
            def marked(self):
                return 1

            def plain(self):
                return 1

        def seconds(call):
            best = []
            for _ in range(5):
                start = time.perf_counter()
                for _ in range(2000):
                    call()
                best.append(time.perf_counter() - start)
            return min(best) / 2000

        bare = Bare()
        assert seconds(bare.marked) - seconds(bare.plain) < 5e-6


class TestWithWorkers:
    @pytest.fixture
    def two(self):
        with use_runtime(ManyHere(2)):
            yield DeviceMesh.from_sizes(dp_size=2)

    def test_the_instance_stands_in_for_workers_and_is_still_of_the_class(self, two):
        adder = Adder(1, remote_group="model", device_mesh=two)
        assert isinstance(adder, Adder)
        assert workers_of(adder) is not None
        assert not hasattr(adder, "amount")

    def test_calls_are_dispatched_and_collected_in_order(self, two):
        adder = Adder(1, remote_group="model", device_mesh=two)
        assert adder.add([1, 2, 3], betas=(0.9, 0.95)) == [(2, 0.9, 0.95), (3, 0.9, 0.95), (4, 0.9, 0.95)]
        assert [len(worker.add([1])) for worker in workers_of(adder).instances] == [1, 1]

    def test_a_method_can_run_on_the_first_alone(self, two):
        assert Adder(1, remote_group="model", device_mesh=two).name() == "Adder"

    def test_without_a_group_it_is_built_right_here(self, two):
        adder = Adder(1)
        assert workers_of(adder) is None
        assert adder.add([1]) == [(2,)]

    def test_workers_get_the_mesh_where_they_take_it(self, two):
        keeper = MeshKeeper(remote_group="model", device_mesh=two)
        assert all(worker.device_mesh is two for worker in workers_of(keeper).instances)

    def test_a_subclass_that_is_not_marked_is_refused(self, two):
        with pytest.raises(ConfigError, match=r"ForgotToMark derives from a remote class.*@remote_class\(\)"):
            ForgotToMark(remote_group="model")

    def test_a_method_that_is_not_marked_again_is_refused(self, two):
        with pytest.raises(ConfigError, match=r"ForgotAMethod\.add overrides Adder\.add.*@remote_function"):
            ForgotAMethod(1, remote_group="model")


class TestBadInput:
    def test_unknown_modes_are_refused_when_the_class_is_made(self):
        with pytest.raises(ConfigError, match="dispatch is one of"):
            remote_function(dispatch="scatter")
        with pytest.raises(ConfigError, match="collect is one of"):
            remote_function(collect="join")
        with pytest.raises(ConfigError, match="execute is one of first, peer, all, not 'some'"):
            remote_function(execute="some")
        with pytest.raises(ConfigError, match="execute is one of"):
            remote_class(execute="some")

    def test_data_that_is_no_parameter_is_refused_with_those_that_are(self):
        with pytest.raises(ConfigError, match=r"has no parameter 'rows' to slice. It has: inputs"):

            @remote_function(data=("rows",))
            def add(self, inputs):
                return inputs

    def test_data_may_come_by_keywords(self):
        @remote_function(data=("rows",))
        def add(self, **kwargs):
            return kwargs

        assert remote_spec(add).data == ("rows",)
