"""How a component is spread over ranks: sizes of the parallel dimensions, and what follows from them.

Pure arithmetic on frozen data; torch is imported only by ``to_torch``. Knows nothing of processes, devices or who runs them.

Dimensions, outermost first: ``pp dp fsdp cp ulysses tp``; so tensor-parallel ranks are neighbours, and pipeline stages are far
apart. Experts are laid over the same ranks a second time, as ``pp edp ep_fsdp ep etp`` (Megatron's order). Virtual pipeline
stages (``vpp``) divide layers, not ranks.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import index
from typing import TYPE_CHECKING

from twinkle.errors import MeshError

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh as TorchDeviceMesh

DIMS = ("pp", "dp", "fsdp", "cp", "ulysses", "tp")
EXPERT_DIMS = ("pp", "edp", "ep_fsdp", "ep", "etp")


@dataclass(frozen=True, kw_only=True, repr=False)
class DeviceMesh:
    """A component's ranks, ``0 … world_size - 1``, arranged in dimensions. Made by :meth:`from_sizes`.

    ``dp`` and ``fsdp`` ranks get different data; the ``pp``, ``cp``, ``ulysses`` and ``tp`` ranks behind one of them work on the
    same rows. That group of ranks is a *data rank*, numbered ``dp * fsdp_size + fsdp``.
    """

    pp_size: int
    dp_size: int
    fsdp_size: int
    cp_size: int
    ulysses_size: int
    tp_size: int
    vpp_size: int
    ep_size: int
    etp_size: int
    ep_fsdp_size: int
    device_type: str | None
    sequence_parallel: bool

    @classmethod
    def from_sizes(
        cls,
        *,
        world_size: int | None = None,
        dp_size: int | None = None,
        fsdp_size: int | None = None,
        tp_size: int | None = None,
        pp_size: int | None = None,
        ulysses_size: int | None = None,
        cp_size: int | None = None,
        ep_size: int | None = None,
        etp_size: int | None = None,
        ep_fsdp_size: int | None = None,
        vpp_size: int | None = None,
        device_type: str | None = None,
        sequence_parallel: bool = False,
    ) -> DeviceMesh:
        """A mesh of these sizes.

        What isn't given is 1, but for: ``dp_size``, which fills ``world_size`` where that is given; ``etp_size``, which is
        ``tp_size`` (Megatron's default); ``ep_fsdp_size``, which shards experts over as many of the ranks that are
        left for them as divide ``fsdp_size``. Without ``world_size``, it is the product.

        Raises:
            MeshError: a size is no positive number, or they don't fit each other; the message says what would fit.
        """
        sizes = {
            name: _size(name, value)
            for name, value in (
                *(("pp", pp_size), ("fsdp", fsdp_size), ("cp", cp_size), ("ulysses", ulysses_size), ("tp", tp_size)),
                *(("vpp", vpp_size), ("ep", ep_size)),
            )
        }
        rest = math.prod(sizes[dim] for dim in DIMS if dim != "dp")
        sizes["dp"] = _infer_dp(dp_size, rest, world_size, sizes)
        sizes["etp"] = _size("etp", etp_size, sizes["tp"])
        for_experts = sizes["dp"] * rest // sizes["pp"]
        sizes["ep_fsdp"] = _size("ep_fsdp", ep_fsdp_size, math.gcd(sizes["fsdp"], for_experts // (sizes["ep"] * sizes["etp"])) or 1)
        _check_experts(sizes, for_experts)
        if sizes["vpp"] > 1 and sizes["pp"] == 1:
            raise MeshError(f"vpp={sizes['vpp']} divides pipeline stages, but pp=1: there are none. Give pp_size of 2 or more.")
        return cls(
            **{f"{name}_size": size for name, size in sizes.items()}, device_type=device_type, sequence_parallel=sequence_parallel
        )

    # -- sizes

    @property
    def world_size(self) -> int:
        """The number of ranks."""
        return math.prod(self.shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of ``DIMS``, in their order."""
        return (self.pp_size, self.dp_size, self.fsdp_size, self.cp_size, self.ulysses_size, self.tp_size)

    @property
    def expert_shape(self) -> tuple[int, ...]:
        """The sizes of ``EXPERT_DIMS``, in their order."""
        return (self.pp_size, self.edp_size, self.ep_fsdp_size, self.ep_size, self.etp_size)

    @property
    def edp_size(self) -> int:
        """Replicas of each expert shard."""
        return self.world_size // (self.pp_size * self.ep_fsdp_size * self.ep_size * self.etp_size)

    @property
    def data_world_size(self) -> int:
        """The number of data ranks: of different slices of a global batch."""
        return self.dp_size * self.fsdp_size

    @property
    def dp_world_size(self) -> int:
        """``data_world_size`` by the name that existing scripts use."""
        return self.data_world_size

    def check_world(self, world_size: int) -> None:
        """See that a launcher's world is this mesh's.

        Raises:
            MeshError: it isn't; the message holds the command that would start the right number.
        """
        if world_size != self.world_size:
            raise MeshError(
                f"The mesh {_product(dict(zip(DIMS, self.shape, strict=True)))} needs {self.world_size} process(es), "
                f"but {world_size} were started. Start it with "
                f"`torchrun --nproc-per-node={self.world_size} …`, or let dp follow the launcher: "
                f"DeviceMesh.from_sizes(world_size={world_size}, …) without dp_size."
            )

    # -- places

    def coordinates(self, rank: int) -> dict[str, int]:
        """Where ``rank`` stands in each of ``DIMS``."""
        return _coordinates(self._checked(rank), DIMS, self.shape)

    def expert_coordinates(self, rank: int) -> dict[str, int]:
        """Where ``rank`` stands in each of ``EXPERT_DIMS``."""
        return _coordinates(self._checked(rank), EXPERT_DIMS, self.expert_shape)

    def rank_at(self, **coordinates: int) -> int:
        """The rank that stands there; dimensions that aren't named are at 0.

        Raises:
            MeshError: no such dimension, or a coordinate beyond its size.
        """
        rank = 0
        if not set(coordinates) <= set(DIMS):
            raise MeshError(f"A rank is found by {', '.join(DIMS)}, not by {', '.join(coordinates)}.")
        for dim, size in zip(DIMS, self.shape, strict=True):
            place = coordinates.get(dim, 0)
            if not 0 <= place < size:
                raise MeshError(f"{dim}={place} lies outside of the mesh {self}: {dim} is 0 … {size - 1}.")
            rank = rank * size + place
        return rank

    def groups(self, *dims: str) -> tuple[tuple[int, ...], ...]:
        """The ranks in groups, in each of which only ``dims`` vary: those that talk to each other along ``dims``.

        ``dims`` are of ``DIMS``, or all of ``EXPERT_DIMS``. The groups, and the ranks in each, are in ascending order.

        Raises:
            MeshError: there are no such dimensions.
        """
        names, shape = self._layout(dims)
        varying = [range(size) if name in dims else (0,) for name, size in zip(names, shape, strict=True)]
        fixed = [(0,) if name in dims else range(size) for name, size in zip(names, shape, strict=True)]
        offsets = [_rank(place, shape) for place in itertools.product(*varying)]
        return tuple(tuple(_rank(place, shape) + offset for offset in offsets) for place in itertools.product(*fixed))

    def group(self, rank: int, *dims: str) -> tuple[int, ...]:
        """The group of ``groups(*dims)`` that ``rank`` is in."""
        names, shape = self._layout(dims)
        place = _coordinates(self._checked(rank), names, shape)
        choices = [range(size) if name in dims else (place[name],) for name, size in zip(names, shape, strict=True)]
        return tuple(_rank(each, shape) for each in itertools.product(*choices))

    def is_first_pp(self, rank: int) -> bool:
        """Whether ``rank`` is in the first pipeline stage, which takes the tokens."""
        return self.coordinates(rank)["pp"] == 0

    def is_last_pp(self, rank: int) -> bool:
        """Whether ``rank`` is in the last pipeline stage, which has the outputs and the loss."""
        return self.coordinates(rank)["pp"] == self.pp_size - 1

    # -- data

    def data_rank(self, rank: int) -> int:
        """Which data rank ``rank`` belongs to."""
        place = self.coordinates(rank)
        return place["dp"] * self.fsdp_size + place["fsdp"]

    def get_slice(self, total_length: int, rank: int) -> slice:
        """The rows, of ``total_length``, that ``rank`` works on.

        Contiguous and in order of data rank; together they are all rows, each once. Lengths differ by at most one: the first
        ``total_length % data_world_size`` data ranks get one more. With fewer rows than data ranks, the last get none.
        """
        return balanced_slice(total_length, self.data_world_size, self.data_rank(rank))

    def data_representatives(self) -> tuple[int, ...]:
        """For each data rank, in order, the rank whose result stands for it: last pipeline stage, first of cp, ulysses and tp."""
        last = self.pp_size - 1
        return tuple(
            self.rank_at(pp=last, dp=dp, fsdp=fsdp) for dp, fsdp in itertools.product(range(self.dp_size), range(self.fsdp_size))
        )

    # -- torch

    def to_torch(self, device_type: str | None = None) -> TorchDeviceMesh:
        """A torch DeviceMesh with all ``DIMS``. Every rank has to call it, after torch.distributed was set up."""
        from torch.distributed.device_mesh import init_device_mesh

        from twinkle.platform import Platform

        found = device_type or self.device_type or Platform.current().device_type
        return init_device_mesh(found, self.shape, mesh_dim_names=DIMS)

    def __repr__(self) -> str:
        sizes = {name: getattr(self, f"{name}_size") for name in (*DIMS, "vpp", "ep", "etp", "ep_fsdp")}
        unsaid = {"etp": self.tp_size, "ep_fsdp": math.gcd(self.fsdp_size, self.edp_size * self.ep_fsdp_size)}
        said = [f"{name}={size}" for name, size in sizes.items() if size != unsaid.get(name, 1)]
        said += [self.device_type] if self.device_type else []
        said += ["sequence_parallel"] if self.sequence_parallel else []
        return f"DeviceMesh({self.world_size} rank{'s' * (self.world_size != 1)}{': ' * bool(said)}{', '.join(said)})"

    def _checked(self, rank: int) -> int:
        if not 0 <= rank < self.world_size:
            raise MeshError(f"There is no rank {rank} in {self}: ranks are 0 … {self.world_size - 1}.")
        return rank

    def _layout(self, dims: Sequence[str]) -> tuple[Sequence[str], tuple[int, ...]]:
        for names, shape in ((DIMS, self.shape), (EXPERT_DIMS, self.expert_shape)):
            if set(dims) <= set(names):
                return names, shape
        raise MeshError(
            f"A mesh has no dimensions {', '.join(dims)} side by side. "
            f"It has {', '.join(DIMS)}; and for experts {', '.join(EXPERT_DIMS)}."
        )


def balanced_slice(total_length: int, parts: int, part: int) -> slice:
    """The ``part``-th of ``parts`` contiguous slices of ``total_length``; the first ``total_length % parts`` are one longer."""
    size, more = divmod(total_length, parts)
    start = part * size + min(part, more)
    return slice(start, start + size + (part < more))


def _size(name: str, value: int | None, default: int = 1) -> int:
    if value is None:
        return default
    try:
        size = index(value)
    except TypeError:
        raise MeshError(f"{name}_size has to be a whole number, not {value!r}.") from None
    if size < 1 or isinstance(value, bool):
        raise MeshError(f"{name}_size has to be a positive number, not {value!r}. Leave it out where there is no such dimension.")
    return size


def _infer_dp(dp_size: int | None, rest: int, world_size: int | None, sizes: dict[str, int]) -> int:
    if world_size is None:
        return _size("dp", dp_size)
    world = _size("world", world_size)
    given = {dim: sizes[dim] for dim in DIMS if dim != "dp"}
    if world % rest:
        raise MeshError(
            f"{_product(given)} doesn't divide world_size={world}. With these sizes it has to be a multiple of {rest}: "
            f"{rest}, {2 * rest}, {3 * rest}, …"
        )
    dp = _size("dp", dp_size, world // rest)
    if dp * rest != world:
        raise MeshError(
            f"{_product({'dp': dp, **given})} isn't world_size={world}. With the other sizes, dp_size={world // rest} fits "
            f"(leave it out, and it is that), or world_size={dp * rest}."
        )
    return dp


def _check_experts(sizes: dict[str, int], for_experts: int) -> None:
    wanted = {name: sizes[name] for name in ("ep_fsdp", "ep", "etp")}
    if for_experts % math.prod(wanted.values()):
        others = sizes["ep_fsdp"] * sizes["etp"]
        fitting = ", ".join(str(n) for n in range(1, for_experts + 1) if for_experts % (n * others) == 0)
        raise MeshError(
            f"Experts with {_product(wanted)} don't fit the {for_experts} rank(s) of a pipeline stage. "
            + (f"With the other sizes, ep_size may be {fitting}." if fitting else f"etp and ep_fsdp have to divide {for_experts}.")
        )


def _product(sizes: dict[str, int]) -> str:
    """Sizes other than 1 for people: ``"dp=2 × tp=2 = 4"``."""
    shown = [f"{name}={size}" for name, size in sizes.items() if size > 1]
    total = math.prod(sizes.values())
    return f"{' × '.join(shown)} = {total}" if len(shown) > 1 else (shown[0] if shown else "of size 1")


def _rank(place: Sequence[int], shape: Sequence[int]) -> int:
    rank = 0
    for at, size in zip(place, shape, strict=True):
        rank = rank * size + at
    return rank


def _coordinates(rank: int, names: Sequence[str], shape: Sequence[int]) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, size in zip(reversed(names), reversed(shape), strict=True):
        rank, found[name] = divmod(rank, size)
    return {name: found[name] for name in names}
