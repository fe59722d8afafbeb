"""dispatch and collect: what workers get, and what becomes of their results."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinkle import DeviceMesh
from twinkle.device_mesh import DIMS
from twinkle.dispatch import collect, dispatch
from twinkle.errors import ConfigError, MeshError
from twinkle.lazy import LazyCollect


def factorizations(world_size: int, parts: int) -> Iterator[tuple[int, ...]]:
    if parts == 1:
        yield (world_size,)
        return
    for size in range(1, world_size + 1):
        if world_size % size == 0:
            yield from ((size, *rest) for rest in factorizations(world_size // size, parts - 1))


def meshes_of(world_size: int) -> list[DeviceMesh]:
    shapes = factorizations(world_size, len(DIMS))
    return [DeviceMesh.from_sizes(**{f"{dim}_size": size for dim, size in zip(DIMS, shape, strict=True)}) for shape in shapes]


def rows_of(calls, name="inputs"):
    return [kwargs[name] for _, kwargs in calls]


def round_trip(mode, batch, mesh, n_workers):
    calls = dispatch(mode, (), {"inputs": batch}, mesh, n_workers)
    return collect("flatten", rows_of(calls), mesh if mode == "slice_dp" else None)


class TestIdentity:
    @pytest.mark.parametrize("world_size", range(1, 65))
    def test_by_data_rank_over_every_mesh_of_that_world(self, world_size):
        for mesh in meshes_of(world_size):
            for length in {0, 1, mesh.data_world_size - 1, mesh.data_world_size, 2 * mesh.data_world_size + 1}:
                assert round_trip("slice_dp", list(range(length)), mesh, world_size) == list(range(length)), mesh

    @pytest.mark.parametrize("n_workers", range(1, 65))
    def test_by_worker(self, n_workers):
        for length in (0, 1, n_workers - 1, n_workers, 3 * n_workers + 2):
            assert round_trip("slice", list(range(length)), None, n_workers) == list(range(length))

    @settings(deadline=None)
    @given(st.sampled_from([mesh for n in (1, 2, 6, 16, 36) for mesh in meshes_of(n)]), st.lists(st.integers()))
    def test_of_any_list_over_any_mesh(self, mesh, batch):
        assert round_trip("slice_dp", batch, mesh, mesh.world_size) == batch
        assert round_trip("slice", batch, mesh, mesh.world_size) == batch

    def test_fsdp_inside_dp_keeps_order(self):
        assert round_trip("slice_dp", list(range(8)), DeviceMesh.from_sizes(fsdp_size=4, dp_size=2), 8) == list(range(8))

    def test_of_tuples(self):
        assert round_trip("slice", (1, 2, 3), None, 2) == (1, 2, 3)

    def test_of_tensors_and_columns_of_them(self):
        torch = pytest.importorskip("torch")
        mesh = DeviceMesh.from_sizes(dp_size=2, tp_size=2)
        batch = {"input_ids": torch.arange(15).reshape(5, 3), "names": list("abcde"), "temperature": 0.5}
        calls = dispatch("slice_dp", (), {"inputs": batch}, mesh, 4)
        assert [part["input_ids"].shape[0] for part in rows_of(calls)] == [3, 3, 2, 2]
        assert all(part["temperature"] == 0.5 for part in rows_of(calls))
        joined = collect("flatten", [{name: part[name] for name in ("input_ids", "names")} for part in rows_of(calls)], mesh)
        assert torch.equal(joined["input_ids"], batch["input_ids"])
        assert joined["names"] == batch["names"]

    def test_of_numpy_arrays(self):
        np = pytest.importorskip("numpy")
        assert round_trip("slice", np.arange(7), None, 3).tolist() == list(range(7))


class TestWhatIsSliced:
    rows = tuple({"input_ids": [i]} for i in range(4))

    def test_a_list_in_the_configuration_is_not(self):
        calls = dispatch("slice_dp", ("AdamW",), {"betas": [0.9, 0.95], "lr": 1e-4}, DeviceMesh.from_sizes(dp_size=2), 2)
        assert calls == [(("AdamW",), {"betas": [0.9, 0.95], "lr": 1e-4})] * 2

    def test_a_list_in_the_configuration_beside_batch_data_of_the_same_length_is_not(self):
        calls = dispatch("slice", (self.rows[:2],), {"betas": [0.9, 0.95]}, None, 2)
        assert calls == [((self.rows[:1],), {"betas": [0.9, 0.95]}), ((self.rows[1:2],), {"betas": [0.9, 0.95]})]

    @pytest.mark.parametrize(
        "configuration",
        [
            {"betas": [0.9, 0.95]},
            {"stop": ["a", "b"], "temperature": 0.5},
            [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
            [{"type": "function", "function": {"name": "add"}}, {"type": "function", "function": {"name": "mul"}}],
            ["q_proj", "v_proj"],
        ],
        ids=["options", "sampling", "conversation", "tools", "names"],
    )
    def test_lists_inside_of_configuration_are_not(self, configuration):
        calls = dispatch("slice", (self.rows[:2],), {"configuration": configuration}, None, 2)
        assert [args for args, _ in calls] == [(self.rows[:1],), (self.rows[1:2],)]
        assert rows_of(calls, "configuration") == [configuration, configuration]

    def test_a_list_of_rows_is_under_any_name(self):
        calls = dispatch("slice", (), {"prompts": self.rows}, None, 2)
        assert rows_of(calls, "prompts") == [self.rows[:2], self.rows[2:]]

    def test_known_names_are_with_the_rows(self):
        calls = dispatch("slice", (self.rows,), {"advantages": [1.0, 2.0, 3.0, 4.0], "ref_logps": None}, None, 2)
        assert [kwargs for _, kwargs in calls] == [
            {"advantages": [1.0, 2.0], "ref_logps": None},
            {"advantages": [3.0, 4.0], "ref_logps": None},
        ]

    def test_a_positional_argument_is_known_by_its_parameter(self):
        calls = dispatch("slice", ([1.0, 2.0],), {}, None, 2, parameters=("rewards",))
        assert [args for args, _ in calls] == [([1.0],), ([2.0],)]

    def test_declared_names_are_and_nothing_else(self):
        calls = dispatch("slice", (), {"inputs": self.rows[:2], "scores": [1, 2]}, None, 2, data=("scores",))
        assert [kwargs for _, kwargs in calls] == [
            {"inputs": self.rows[:2], "scores": [1]},
            {"inputs": self.rows[:2], "scores": [2]},
        ]

    @pytest.mark.parametrize(
        "row",
        [
            {"input_ids": [1, 2, 3], "labels": [1, 2, 3]},
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        ],
    )
    def test_a_single_row_is_no_batch(self, row):
        assert rows_of(dispatch("slice", (), {"inputs": row}, None, 2)) == [row, row]

    def test_a_single_row_of_tensors_is_no_batch(self):
        torch = pytest.importorskip("torch")
        row = {"input_ids": torch.arange(3), "labels": torch.arange(3)}
        assert all(part is row for part in rows_of(dispatch("slice", (), {"inputs": row}, None, 2)))

    def test_columns_of_lists_are_batch_data(self):
        columns = {"input_ids": [[1, 2], [3]], "labels": [[1, 2], [3]]}
        assert rows_of(dispatch("slice", (), {"inputs": columns}, None, 2)) == [
            {"input_ids": [[1, 2]], "labels": [[1, 2]]},
            {"input_ids": [[3]], "labels": [[3]]},
        ]

    def test_batch_data_of_two_lengths_is_an_error_that_names_both(self):
        with pytest.raises(ConfigError, match="inputs has 4, rewards has 3"):
            dispatch("slice", (), {"inputs": self.rows, "rewards": [1.0, 2.0, 3.0]}, None, 2)

    def test_declared_data_that_cannot_be_sliced_is_an_error_that_names_it(self):
        with pytest.raises(ConfigError, match="inputs was declared as batch data, but int"):
            dispatch("slice", (), {"inputs": 3}, None, 2, data=("inputs",))

    def test_all_gives_everything_to_everyone(self):
        assert dispatch("all", (self.rows,), {"a": 1}, None, 2) == [((self.rows,), {"a": 1})] * 2

    def test_lazy_results_are_arguments_like_any_other(self):
        calls = dispatch("slice", (LazyCollect(lambda: self.rows),), {}, None, 2)
        assert [args for args, _ in calls] == [(self.rows[:2],), (self.rows[2:],)]

    def test_a_callable_decides_for_itself(self):
        mesh = DeviceMesh.from_sizes(dp_size=2)
        calls = dispatch(lambda length, i, args, kwargs, device_mesh: ((length, i, device_mesh), kwargs), (), {"a": 1}, mesh, 2)
        assert calls == [((2, 0, mesh), {"a": 1}), ((2, 1, mesh), {"a": 1})]

    def test_a_mesh_of_another_size_than_the_workers_is_an_error(self):
        with pytest.raises(MeshError, match="needs 4"):
            dispatch("slice_dp", (self.rows,), {}, DeviceMesh.from_sizes(dp_size=4), 2)

    def test_an_unknown_mode_is_an_error_that_lists_them(self):
        with pytest.raises(ConfigError, match="all, slice, slice_dp"):
            dispatch("scatter", (), {}, None, 1)


class TestCollect:
    mesh = DeviceMesh.from_sizes(pp_size=2, dp_size=2, tp_size=2)  # data ranks are represented by ranks 4 and 6

    def test_none_gives_all_results_and_a_single_one_as_it_is(self):
        assert collect("none", [1, 2]) == [1, 2]
        assert collect("none", [[1]]) == [1]

    def test_first_is_the_first_workers(self):
        assert collect("first", list("abcdefgh"), self.mesh) == "a"

    def test_last_pp_is_one_for_each_data_rank_of_the_last_stage(self):
        assert collect("last_pp", list("abcdefgh"), self.mesh) == ["e", "g"]

    def test_sum_and_mean_count_each_data_rank_once(self):
        results = [float(rank) for rank in range(8)]
        assert collect("sum", results, self.mesh) == 10.0
        assert collect("mean", results, self.mesh) == 5.0

    def test_without_a_mesh_every_worker_counts(self):
        assert collect("mean", [1.0, 2.0, 6.0]) == 3.0

    def test_mean_of_mappings_tuples_and_tensors_is_that_of_what_they_hold(self):
        torch = pytest.importorskip("torch")
        results = [({"loss": 1.0}, torch.tensor([1.0, 2.0])), ({"loss": 3.0}, torch.tensor([3.0, 6.0]))]
        mapping, tensor = collect("mean", results)
        assert mapping == {"loss": 2.0}
        assert tensor.tolist() == [2.0, 4.0]
        assert results[0][1].tolist() == [1.0, 2.0]

    def test_nothing_anywhere_is_nothing(self):
        assert collect("mean", [None, None]) is None
        assert collect("flatten", [None, None]) is None

    def test_a_callable_gets_all_results_and_the_mesh(self):
        assert collect(lambda results, device_mesh: (results, device_mesh), [1, 2], self.mesh) == ([1, 2], self.mesh)

    @pytest.mark.parametrize(
        ("mode", "results"), [("flatten", [1.0, 2.0]), ("mean", [[1.0], [2.0]]), ("sum", ["a", "b"]), ("sum", [1, None])]
    )
    def test_results_that_cannot_be_joined_are_an_error_that_names_mode_and_types(self, mode, results):
        with pytest.raises(ConfigError, match=f"collect='{mode}'.*({type(results[0]).__name__})"):
            collect(mode, results)

    def test_columns_that_differ_are_an_error_that_names_the_worker(self):
        with pytest.raises(ConfigError, match="result 1 has b"):
            collect("flatten", [{"a": [1]}, {"b": [1]}])

    def test_no_results_are_an_error(self):
        with pytest.raises(ConfigError, match="no results"):
            collect("mean", [])

    def test_an_unknown_mode_is_an_error_that_lists_them(self):
        with pytest.raises(ConfigError, match="none, flatten, mean, sum, first, last_pp"):
            collect("join", [1])


def test_all_meshes_are_covered():
    assert sum(len(meshes_of(n)) for n in (2, 6, 64)) == 6 + 36 + math.comb(11, 5)
