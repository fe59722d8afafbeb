"""The data-parallel ranks that a model is trained on together, as the current runtime joins them.

Every rank has to call every operation here; in a world of one they do nothing. Knows nothing of models or gradients.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from twinkle.errors import ConfigError
from twinkle.runtime import Runtime, current_runtime

if TYPE_CHECKING:
    from twinkle.device_mesh import DeviceMesh

_BUCKET_MB = 256


class DataParallel:
    """The ranks that hold the same weights and see different rows: all of the runtime's."""

    def __init__(self, runtime: Runtime | None = None, *, bucket_bytes: int = _BUCKET_MB << 20) -> None:
        self.runtime = current_runtime() if runtime is None else runtime
        self.bucket_bytes = bucket_bytes
        self.runtime.ensure_process_group()

    @classmethod
    def of(
        cls,
        mesh: DeviceMesh | None,
        *,
        strategy: str,
        ddp_config: Mapping[str, Any] | None,
        fsdp_config: Mapping[str, Any] | None,
    ) -> DataParallel:
        """What a model was asked for, where that is data parallelism.

        Raises:
            ConfigError: it is something else, or an option isn't known.
            MeshError: the mesh doesn't fit the number of processes.
        """
        if strategy not in ("accelerate", "ddp"):
            raise ConfigError(f"There is no strategy {strategy!r} here; 'accelerate' is data parallelism.")
        if fsdp_config:
            raise ConfigError(
                "fsdp_config is for a sharding strategy; 'accelerate' keeps whole weights on every rank. Leave it out."
            )
        options = dict(ddp_config or {})
        bucket = options.pop("bucket_cap_mb", _BUCKET_MB)
        if options:
            raise ConfigError(
                f"ddp_config takes bucket_cap_mb only, not {', '.join(options)}: gradients are reduced once a step, without hooks."
            )
        runtime = current_runtime()
        mesh = mesh or runtime.device_mesh
        if mesh.dp_size != mesh.world_size:
            raise ConfigError(
                f"TransformersModel does data parallelism only; {mesh} asks for more. Give DeviceMesh.from_sizes(dp_size=…)."
            )
        mesh.check_world(runtime.world_size)
        return cls(runtime, bucket_bytes=int(bucket) << 20)

    @property
    def rank(self) -> int:
        """This rank's number."""
        return self.runtime.rank

    @property
    def size(self) -> int:
        """How many ranks there are."""
        return self.runtime.world_size

    @property
    def is_master(self) -> bool:
        """Whether this rank writes files."""
        return self.runtime.is_master

    def all_reduce_sum(self, tensor: Tensor) -> None:
        """Replace ``tensor`` by its sum over ranks."""
        self.runtime.all_reduce(tensor, "sum")

    def gather(self, value: Any) -> list[Any]:
        """Every rank's ``value`` (anything that pickles), in order of rank."""
        return self.runtime.all_gather_object(value)

    def broadcast(self, value: Any) -> Any:
        """The master's ``value``."""
        return self.runtime.broadcast_object(value)
