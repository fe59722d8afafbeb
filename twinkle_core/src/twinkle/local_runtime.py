"""The local runtime: components run in this process, which is alone or one rank of torchrun.

Joins ranks by torch.distributed, set up when first needed. Knows nothing of clusters, drivers or dispatch: every rank runs the
whole script on its own slice of the data.
"""

from __future__ import annotations

import atexit
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from twinkle.device_mesh import DIMS, DeviceMesh
from twinkle.errors import ConfigError, MeshError
from twinkle.launch import Launch
from twinkle.platform import Platform
from twinkle.runtime import ReduceOp, Runtime, RuntimeSettings

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh as TorchDeviceMesh

T = TypeVar("T")


class LocalRuntime(Runtime):
    """This process, or each rank of torchrun.

    Raises:
        MeshError: the global mesh doesn't have as many ranks as the launcher started.
        ConfigError: a device type is asked for that this machine doesn't have.
    """

    def __init__(self, settings: RuntimeSettings | None = None, launch: Launch | None = None) -> None:
        settings = settings or RuntimeSettings()
        self.launch = launch or Launch.from_environment()
        self._mesh = settings.global_device_mesh or DeviceMesh.from_sizes(world_size=self.launch.world_size)
        self._mesh.check_world(self.launch.world_size)
        self.platform = _platform(self._mesh)
        self._owns_process_group = False
        self._groups: dict[tuple[DeviceMesh, tuple[str, ...]], ProcessGroup] = {}
        self._torch_meshes: dict[DeviceMesh, TorchDeviceMesh] = {}
        super().__init__(settings)

    @property
    def rank(self) -> int:
        return self.launch.rank

    @property
    def world_size(self) -> int:
        return self.launch.world_size

    @property
    def device(self) -> str:
        return self.platform.device(self.launch.local_rank)

    @property
    def device_mesh(self) -> DeviceMesh:
        return self._mesh

    def placements(self) -> list[Mapping[str, Any]]:
        shown = [dim for dim, size in zip(DIMS, self._mesh.shape, strict=True) if size > 1]
        rows: list[Mapping[str, Any]] = []
        for rank in range(self.world_size):
            node, local_rank = divmod(rank, self.launch.local_world_size)
            place = self._mesh.coordinates(rank)
            row = {"rank": rank, "node": node, "device": self.platform.device(local_rank)}
            rows.append({**row, "data": self._mesh.data_rank(rank), **{dim: place[dim] for dim in shown}})
        return rows

    def ensure_process_group(self) -> None:
        """Set torch.distributed up, once: gloo for cpu, with nccl or hccl beside it for cuda or npu. Seeds torch.

        Raises:
            MeshError: somebody else has set it up for another number of ranks.
        """
        if self.world_size == 1:
            if self.platform.device_type != "cpu":
                self._select_device()
            return super().ensure_process_group()
        import torch.distributed as dist

        if not dist.is_initialized():
            self._select_device()
            backend = self.platform.backend
            dist.init_process_group(
                backend if backend == "gloo" else f"cpu:gloo,{self.platform.device_type}:{backend}",
                rank=self.rank,
                world_size=self.world_size,
            )
            self._owns_process_group = True
            atexit.register(self.close)
        elif dist.get_world_size() != self.world_size:
            raise MeshError(
                f"torch.distributed was set up for {dist.get_world_size()} ranks, but the launcher started {self.world_size}. "
                f"Leave setting it up to Twinkle, or do it for all of them."
            )
        super().ensure_process_group()

    def torch_mesh(self, mesh: DeviceMesh | None = None) -> TorchDeviceMesh:
        """The torch DeviceMesh of ``mesh`` (default: the global one), made once. Every rank has to ask for it.

        Raises:
            MeshError: this is a world of one, where there is nothing to join.
        """
        mesh = mesh or self._mesh
        mesh.check_world(self.world_size)
        if self.world_size == 1:
            raise MeshError("A torch DeviceMesh joins processes, and this is a world of one. Start it with torchrun.")
        self.ensure_process_group()
        if mesh not in self._torch_meshes:
            self._torch_meshes[mesh] = mesh.to_torch(self.platform.device_type)
        return self._torch_meshes[mesh]

    def process_group(self, *dims: str, mesh: DeviceMesh | None = None) -> ProcessGroup | None:
        mesh = mesh or self._mesh
        mesh.check_world(self.world_size)
        groups = mesh.groups(*dims)
        if self.world_size == 1:
            return None
        import torch.distributed as dist

        self.ensure_process_group()
        key = (mesh, dims)
        if key not in self._groups:
            for ranks in groups:  # every rank takes part in making every group, in the same order
                made = dist.new_group(list(ranks))
                if self.rank in ranks:
                    self._groups[key] = made
        return self._groups[key]

    def all_gather_object(self, value: T) -> list[T]:
        if self.world_size == 1:
            return [value]
        import torch.distributed as dist

        self.ensure_process_group()
        gathered: list[Any] = [None] * self.world_size
        dist.all_gather_object(gathered, value)
        return gathered

    def broadcast_object(self, value: T, source: int = 0) -> T:
        if self.world_size == 1:
            return value
        import torch.distributed as dist

        self.ensure_process_group()
        box = [value if self.rank == source else None]
        dist.broadcast_object_list(box, src=source)
        return box[0]  # type: ignore[return-value]  # filled by rank ``source``

    def all_reduce(self, tensor: Tensor, op: ReduceOp = "sum", *, group: ProcessGroup | None = None) -> Tensor:
        if op not in ("sum", "mean", "max", "min"):
            raise ConfigError(f"Tensors are reduced by sum, mean, max or min, not by {op!r}.")
        if self.world_size == 1:
            return tensor
        import torch.distributed as dist

        self.ensure_process_group()
        by = {"sum": dist.ReduceOp.SUM, "mean": dist.ReduceOp.SUM, "max": dist.ReduceOp.MAX, "min": dist.ReduceOp.MIN}
        dist.all_reduce(tensor, by[op], group=group)
        return tensor.div_(dist.get_world_size(group)) if op == "mean" else tensor  # gloo has no mean of its own

    def close(self) -> None:
        """Take torch.distributed down, where this runtime has set it up."""
        if self._owns_process_group:
            import torch.distributed as dist

            self._owns_process_group = False
            self._groups.clear()
            self._torch_meshes.clear()
            atexit.unregister(self.close)
            if dist.is_initialized():
                dist.destroy_process_group()

    def _select_device(self) -> None:
        """Make ``device`` the one that torch uses when none is named; nccl joins the wrong ones otherwise."""
        if self.platform.device_type in ("cuda", "npu"):
            import torch

            getattr(torch, self.platform.device_type).set_device(self.device)


def _platform(mesh: DeviceMesh) -> Platform:
    if mesh.device_type is None:
        return Platform.current()
    platform = Platform.named(mesh.device_type)
    if not platform.is_available():
        here = ", ".join(row.device_type for row in Platform.available())
        raise ConfigError(
            f"The mesh is for {mesh.device_type}, but there is no such device here that torch can use. There is: {here}. "
            f"Leave device_type out, and the best one is taken."
        )
    return platform
