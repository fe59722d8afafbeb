"""DeviceMesh: sizes that fit, places of ranks, slices of data."""

from __future__ import annotations

import itertools
import math
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinkle import DeviceMesh
from twinkle.device_mesh import DIMS, EXPERT_DIMS
from twinkle.errors import MeshError


def factorizations(world_size: int, parts: int) -> list[tuple[int, ...]]:
    if parts == 1:
        return [(world_size,)]
    divisors = [n for n in range(1, world_size + 1) if world_size % n == 0]
    return [(n, *rest) for n in divisors for rest in factorizations(world_size // n, parts - 1)]


def mesh_of(shape: tuple[int, ...]) -> DeviceMesh:
    return DeviceMesh.from_sizes(**{f"{dim}_size": size for dim, size in zip(DIMS, shape, strict=True)})


MESHES = [mesh_of(shape) for world_size in range(1, 65) for shape in factorizations(world_size, len(DIMS))]
meshes = st.sampled_from(MESHES)


class TestSizes:
    def test_dp_fills_the_world_where_it_is_not_given(self):
        assert DeviceMesh.from_sizes(world_size=8, tp_size=2, pp_size=2).dp_size == 2

    def test_dp_fills_the_world_beside_fsdp(self):
        assert DeviceMesh.from_sizes(world_size=8, fsdp_size=4).dp_size == 2

    def test_without_a_world_size_it_is_the_product(self):
        assert DeviceMesh.from_sizes(dp_size=2, fsdp_size=4, tp_size=2).world_size == 16

    def test_nothing_given_is_a_world_of_one(self):
        assert DeviceMesh.from_sizes().world_size == 1

    def test_virtual_stages_and_experts_take_no_ranks_of_their_own(self):
        assert DeviceMesh.from_sizes(world_size=8, pp_size=2, vpp_size=4, ep_size=2).world_size == 8

    def test_the_world_is_the_product_of_the_dimensions(self):
        assert all(mesh.world_size == math.prod(mesh.shape) for mesh in MESHES)

    def test_sizes_that_do_not_divide_the_world_are_named_with_worlds_that_fit(self):
        with pytest.raises(MeshError, match=r"pp=2 × tp=3 = 6 doesn't divide world_size=8.*multiple of 6: 6, 12, 18"):
            DeviceMesh.from_sizes(world_size=8, tp_size=3, pp_size=2)

    def test_a_wrong_product_is_named_with_the_dp_size_that_fits(self):
        with pytest.raises(MeshError, match=r"dp=3 × tp=2 = 6 isn't world_size=8.*dp_size=4 fits.*or world_size=6"):
            DeviceMesh.from_sizes(world_size=8, dp_size=3, tp_size=2)

    @pytest.mark.parametrize("value", [0, -1, 2.0, "2", True])
    def test_a_size_that_is_no_positive_number_is_named(self, value):
        with pytest.raises(MeshError, match="tp_size"):
            DeviceMesh.from_sizes(tp_size=value)

    def test_virtual_stages_without_a_pipeline_are_refused(self):
        with pytest.raises(MeshError, match=r"vpp=2.*pp=1"):
            DeviceMesh.from_sizes(world_size=4, vpp_size=2)

    def test_another_world_than_the_launchers_is_an_error_with_the_command_that_fits(self):
        with pytest.raises(MeshError, match=r"dp=2 × tp=2 = 4 needs 4 process\(es\), but 1 were started.*--nproc-per-node=4"):
            DeviceMesh.from_sizes(dp_size=2, tp_size=2).check_world(1)

    def test_the_launchers_world_is_accepted(self):
        DeviceMesh.from_sizes(dp_size=2).check_world(2)


class TestValue:
    def test_equal_sizes_are_equal_meshes_with_one_hash(self):
        one, other = DeviceMesh.from_sizes(world_size=4, tp_size=2), DeviceMesh.from_sizes(dp_size=2, tp_size=2)
        assert one == other
        assert len({one, other}) == 1

    def test_it_cannot_be_changed(self):
        with pytest.raises(AttributeError):
            DeviceMesh.from_sizes().tp_size = 2

    def test_it_pickles(self):
        mesh = DeviceMesh.from_sizes(dp_size=2, ep_size=2, device_type="cpu", sequence_parallel=True)
        assert pickle.loads(pickle.dumps(mesh)) == mesh

    @pytest.mark.parametrize(
        ("mesh", "text"),
        [
            (DeviceMesh.from_sizes(), "DeviceMesh(1 rank)"),
            (DeviceMesh.from_sizes(world_size=8, pp_size=2, tp_size=2), "DeviceMesh(8 ranks: pp=2, dp=2, tp=2)"),
            (DeviceMesh.from_sizes(fsdp_size=4, ep_size=2), "DeviceMesh(4 ranks: fsdp=4, ep=2)"),
            (DeviceMesh.from_sizes(tp_size=4, etp_size=1, ep_size=2), "DeviceMesh(4 ranks: tp=4, ep=2, etp=1)"),
            (DeviceMesh.from_sizes(dp_size=2, device_type="cuda"), "DeviceMesh(2 ranks: dp=2, cuda)"),
        ],
    )
    def test_its_repr_says_what_is_not_one(self, mesh, text):
        assert repr(mesh) == text


class TestPlaces:
    def test_tensor_parallel_ranks_are_neighbours_and_stages_are_far_apart(self):
        mesh = DeviceMesh.from_sizes(world_size=8, pp_size=2, tp_size=2)
        assert mesh.groups("tp") == ((0, 1), (2, 3), (4, 5), (6, 7))
        assert mesh.groups("dp") == ((0, 2), (1, 3), (4, 6), (5, 7))
        assert mesh.groups("pp") == ((0, 4), (1, 5), (2, 6), (3, 7))

    @pytest.mark.parametrize("dim", DIMS)
    def test_each_dimension_is_as_documented(self, dim):
        mesh = mesh_of((2, 2, 2, 2, 2, 2))
        stride = 2 ** (len(DIMS) - 1 - DIMS.index(dim))
        assert mesh.group(0, dim) == (0, stride)

    def test_a_rank_is_found_again_by_its_coordinates(self):
        for mesh in MESHES[::37]:
            for rank in range(mesh.world_size):
                assert mesh.rank_at(**mesh.coordinates(rank)) == rank

    def test_groups_along_any_dimensions_hold_each_rank_once(self):
        mesh = DeviceMesh.from_sizes(pp_size=2, dp_size=2, fsdp_size=3, cp_size=2, ulysses_size=1, tp_size=2, ep_size=2, etp_size=1)
        for names in (DIMS, EXPERT_DIMS):
            for dims in itertools.chain.from_iterable(itertools.combinations(names, n) for n in range(len(names) + 1)):
                groups = mesh.groups(*dims)
                assert sorted(itertools.chain.from_iterable(groups)) == list(range(mesh.world_size))
                assert list(groups) == sorted(groups)
                for group in groups:
                    assert list(group) == sorted(group)
                    assert all(mesh.group(rank, *dims) == group for rank in group)

    def test_several_dimensions_give_their_common_groups(self):
        mesh = DeviceMesh.from_sizes(dp_size=2, fsdp_size=2, tp_size=2)
        assert mesh.groups("dp", "fsdp") == ((0, 2, 4, 6), (1, 3, 5, 7))

    @pytest.mark.parametrize("rank", [-1, 4])
    def test_a_rank_outside_of_the_mesh_is_an_error(self, rank):
        with pytest.raises(MeshError, match=r"no rank -?\d.*0 … 3"):
            DeviceMesh.from_sizes(dp_size=4).coordinates(rank)

    def test_an_unknown_dimension_is_an_error_that_lists_them(self):
        with pytest.raises(MeshError, match=r"sp.*pp, dp, fsdp, cp, ulysses, tp.*edp"):
            DeviceMesh.from_sizes().groups("sp")

    def test_dimensions_of_the_two_layouts_do_not_mix(self):
        with pytest.raises(MeshError, match="side by side"):
            DeviceMesh.from_sizes().groups("tp", "ep")

    @pytest.mark.parametrize("place", [{"dp": 2}, {"sp": 0}, {"tp": -1}])
    def test_a_place_that_does_not_exist_is_an_error(self, place):
        with pytest.raises(MeshError):
            DeviceMesh.from_sizes(dp_size=2).rank_at(**place)

    def test_first_and_last_stage(self):
        mesh = DeviceMesh.from_sizes(pp_size=2, dp_size=2)
        assert [mesh.is_first_pp(rank) for rank in range(4)] == [True, True, False, False]
        assert [mesh.is_last_pp(rank) for rank in range(4)] == [False, False, True, True]


class TestExperts:
    def test_they_are_a_second_layout_of_the_same_ranks(self):
        mesh = DeviceMesh.from_sizes(dp_size=4, tp_size=2, ep_size=4, etp_size=1)
        assert (mesh.edp_size, mesh.ep_size, mesh.etp_size) == (2, 4, 1)
        assert mesh.groups("ep") == ((0, 1, 2, 3), (4, 5, 6, 7))
        assert mesh.groups("edp") == ((0, 4), (1, 5), (2, 6), (3, 7))

    def test_their_tensor_parallel_size_is_that_of_the_rest_by_default(self):
        assert DeviceMesh.from_sizes(dp_size=4, tp_size=2, ep_size=2).etp_size == 2

    def test_they_are_sharded_where_the_rest_is(self):
        assert DeviceMesh.from_sizes(fsdp_size=8, ep_size=2).ep_fsdp_size == 4
        assert DeviceMesh.from_sizes(dp_size=8, ep_size=2).ep_fsdp_size == 1

    def test_a_size_that_does_not_fit_is_named_with_those_that_do(self):
        with pytest.raises(MeshError, match=r"ep=3 don't fit the 4 rank\(s\).*ep_size may be 1, 2, 4"):
            DeviceMesh.from_sizes(dp_size=4, ep_size=3)

    @settings(deadline=None)
    @given(meshes, st.data())
    def test_any_layout_that_is_taken_holds_each_rank_once_inside_its_stage(self, mesh, data):
        in_stage = mesh.world_size // mesh.pp_size
        ep = data.draw(st.sampled_from([n for n in range(1, in_stage + 1) if in_stage % n == 0]), label="ep")
        etp = data.draw(st.sampled_from([n for n in range(1, in_stage // ep + 1) if (in_stage // ep) % n == 0]), label="etp")
        sizes = {f"{dim}_size": size for dim, size in zip(DIMS, mesh.shape, strict=True)}
        made = DeviceMesh.from_sizes(**sizes, ep_size=ep, etp_size=etp)
        assert math.prod(made.expert_shape) == made.world_size
        for dims in (("ep",), ("etp",), ("edp", "ep_fsdp"), EXPERT_DIMS[1:]):
            groups = made.groups(*dims)
            assert sorted(itertools.chain.from_iterable(groups)) == list(range(made.world_size))
            assert all(len({made.coordinates(rank)["pp"] for rank in group}) == 1 for group in groups)

    @settings(deadline=None)
    @given(meshes, st.integers(2, 70), st.sampled_from([1, 2]))
    def test_a_size_is_taken_or_an_error_of_meshes(self, mesh, ep, etp):
        in_stage = mesh.world_size // mesh.pp_size
        sizes = {f"{dim}_size": size for dim, size in zip(DIMS, mesh.shape, strict=True)}
        if in_stage % (ep * etp) == 0:
            assert DeviceMesh.from_sizes(**sizes, ep_size=ep, etp_size=etp).ep_size == ep
        else:
            with pytest.raises(MeshError, match=f"ep={ep}.*{in_stage}"):
                DeviceMesh.from_sizes(**sizes, ep_size=ep, etp_size=etp)

    def test_expert_coordinates_are_different_for_each_rank(self):
        mesh = DeviceMesh.from_sizes(pp_size=2, dp_size=2, tp_size=2, ep_size=2, etp_size=1)
        assert len({tuple(mesh.expert_coordinates(rank).values()) for rank in range(8)}) == 8


class TestEveryFactorization:
    """Over all meshes of up to 64 ranks."""

    def test_world_size_alone_finds_the_same_dp(self):
        for mesh in MESHES:
            sizes = {f"{dim}_size": size for dim, size in zip(DIMS, mesh.shape, strict=True) if dim != "dp"}
            assert DeviceMesh.from_sizes(world_size=mesh.world_size, **sizes) == mesh

    def test_ranks_that_share_a_data_rank_are_those_of_one_model_replica(self):
        for mesh in MESHES:
            behind = mesh.groups("pp", "cp", "ulysses", "tp")
            assert len(behind) == mesh.data_world_size
            assert [{mesh.data_rank(rank) for rank in group} for group in behind] == [{n} for n in range(len(behind))]


class TestData:
    def test_fsdp_inside_dp_keeps_order(self):
        mesh = DeviceMesh.from_sizes(fsdp_size=4, dp_size=2)
        rows = list(range(16))
        assert [row for rank in mesh.data_representatives() for row in rows[mesh.get_slice(16, rank)]] == rows

    def test_ranks_behind_one_data_rank_get_the_same_rows(self):
        mesh = mesh_of((2, 2, 2, 2, 2, 2))
        for rank in range(mesh.world_size):
            for other in mesh.group(rank, "pp", "cp", "ulysses", "tp"):
                assert mesh.get_slice(13, other) == mesh.get_slice(13, rank)

    def test_replicas_are_counted_over_dp_and_fsdp(self):
        mesh = DeviceMesh.from_sizes(dp_size=2, fsdp_size=3, tp_size=2, cp_size=2)
        assert mesh.data_world_size == mesh.dp_world_size == 6

    def test_every_data_rank_has_one_representative_in_the_last_stage(self):
        for mesh in MESHES:
            representatives = mesh.data_representatives()
            assert [mesh.data_rank(rank) for rank in representatives] == list(range(mesh.data_world_size))
            assert all(mesh.is_last_pp(rank) for rank in representatives)

    @settings(deadline=None)
    @given(meshes, st.integers(0, 300))
    def test_slices_are_contiguous_balanced_and_cover_everything(self, mesh, total):
        slices = [mesh.get_slice(total, rank) for rank in mesh.data_representatives()]
        assert [row for each in slices for row in range(total)[each]] == list(range(total))
        lengths = [each.stop - each.start for each in slices]
        assert lengths == sorted(lengths, reverse=True)
        assert max(lengths) - min(lengths) <= 1

    def test_with_fewer_rows_than_data_ranks_the_last_get_none(self):
        mesh = DeviceMesh.from_sizes(dp_size=4)
        assert [len(range(2)[mesh.get_slice(2, rank)]) for rank in range(4)] == [1, 1, 0, 0]
