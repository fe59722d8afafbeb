"""The runtime of this process: what initialize chooses, and what ranks have in common."""

from __future__ import annotations

import random
import subprocess
import sys
import threading

import pytest

import twinkle
from twinkle import DeviceGroup, DeviceMesh, get_device_placement, initialize, is_master
from twinkle.errors import ComponentNotFoundError, ConfigError, MeshError, MissingRequirementError
from twinkle.launch import Launch
from twinkle.local_runtime import LocalRuntime
from twinkle.notifier import Notifier
from twinkle.platform import DEVICE_VARIABLE, Platform
from twinkle.runtime import Runtime, RuntimeSettings, current_runtime, use_runtime
from twinkle.testing.processes import RankError, run_ranks


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch):
    """No runtime yet, no launcher, and the CPU, as these tests describe them; what a test makes is gone after it."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(DEVICE_VARIABLE, "cpu")
    with use_runtime(None):
        yield


class TestOneProcess:
    def test_without_initialize_it_is_local_and_alone(self):
        runtime = current_runtime()
        assert isinstance(runtime, LocalRuntime)
        assert (runtime.rank, runtime.world_size, runtime.device, runtime.is_master) == (0, 1, "cpu", True)
        assert runtime.device_mesh == DeviceMesh.from_sizes()
        assert is_master()

    def test_there_is_one(self):
        assert current_runtime() is current_runtime()
        found: list[Runtime] = []
        threads = [threading.Thread(target=lambda: found.append(current_runtime())) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(found) == {current_runtime()}

    def test_initialize_replaces_it(self):
        before = current_runtime()
        assert initialize() is current_runtime() is not before

    def test_what_joins_ranks_gives_back_what_it_got(self):
        runtime = current_runtime()
        value = object()
        assert runtime.all_gather_object(value) == [value]
        assert runtime.gather_data(value) == [value]
        assert runtime.broadcast_object(value) is value
        assert runtime.all_reduce(value) is value
        assert runtime.process_group("dp") is None
        runtime.ensure_process_group()
        runtime.barrier()

    def test_another_runtime_can_be_used_for_a_while(self):
        outer, inner = current_runtime(), LocalRuntime()
        with use_runtime(inner):
            assert current_runtime() is inner
        assert current_runtime() is outer

    def test_an_unknown_reduction_is_an_error(self):
        with pytest.raises(ConfigError, match="not by 'median'"):
            current_runtime().all_reduce(None, "median")


class TestBadInput:
    def test_a_mesh_that_does_not_fit_the_launchers_world_is_an_error_and_changes_nothing(self):
        before = current_runtime()
        with pytest.raises(MeshError, match=r"dp=2 needs 2 process.*1 were started"):
            initialize(global_device_mesh=DeviceMesh.from_sizes(dp_size=2))
        assert current_runtime() is before

    def test_ray_without_its_plugin_says_what_to_install(self, monkeypatch):
        def nothing(kind, reference):
            raise ComponentNotFoundError(f"There is no {kind} {reference}.")

        monkeypatch.setattr("twinkle.runtime.load_component", nothing)
        with pytest.raises(MissingRequirementError, match="pip install twinkle-plugin-ray"):
            initialize(mode="ray")

    def test_an_unknown_mode_is_an_error_that_names_those_there_are(self):
        with pytest.raises(ConfigError, match=r"no runtime 'NoSuchRuntime'.*'local', 'ray'"):
            initialize(mode="NoSuchRuntime")

    @pytest.mark.parametrize(
        ("options", "name"),
        [
            ({"seed": -1}, "seed"),
            ({"seed": "42"}, "seed"),
            ({"seed": 2**64}, "seed"),
            ({"nproc_per_node": 0}, "nproc_per_node"),
            ({"ncpu_proc_per_node": 1.5}, "ncpu_proc_per_node"),
            ({"global_device_mesh": 8}, "global_device_mesh"),
            ({"groups": ["model"]}, "DeviceGroup"),
            ({"groups": [DeviceGroup("a", 1), DeviceGroup("a", 2)]}, "'a'"),
        ],
    )
    def test_an_option_that_cannot_be_is_named(self, options, name):
        with pytest.raises(ConfigError, match=name):
            initialize(**options)

    def test_a_device_that_is_not_here_is_an_error_that_says_what_is(self):
        missing = next(row for row in ("npu", "mps", "cuda") if not Platform.named(row).is_available())
        with pytest.raises(ConfigError, match=f"The mesh is for {missing}.*There is: .*cpu"):
            initialize(global_device_mesh=DeviceMesh.from_sizes(device_type=missing))

    def test_an_unknown_notifier_is_an_error(self):
        with pytest.raises(ComponentNotFoundError):
            initialize(notifier="NoSuchNotifier")


class TestOtherRuntimes:
    def test_a_plugins_runtime_is_found_by_its_name(self, monkeypatch):
        class Elsewhere(Runtime):
            def placements(self):
                return [{"rank": 0, "device": "moon"}]

            def close(self) -> None:
                self.closed = True

        asked = []
        monkeypatch.setattr("twinkle.runtime.load_component", lambda kind, name: asked.append((kind, name)) or Elsewhere)
        made = initialize(mode="ray", groups=[DeviceGroup("model", 4, "cuda")])
        assert asked == [("runtime", "RayRuntime")]
        assert isinstance(made, Elsewhere)
        assert "group model: 4 × cuda (ranks 0-3)" in get_device_placement()
        assert "moon" in get_device_placement()
        initialize()
        assert made.closed

    def test_one_without_workers_builds_none(self):
        with pytest.raises(ConfigError, match="local runtime has no workers"):
            current_runtime().create_workers(dict, (), {}, execute="all", remote_group="model", device_mesh=None)


class TestPlacement:
    def test_one_process(self):
        assert get_device_placement().splitlines() == [
            "local runtime, 1 rank, DeviceMesh(1 rank)",
            "rank  node  device  data",
            "0     0     cpu     0",
        ]

    def test_several_ranks_show_where_they_stand(self):
        mesh = DeviceMesh.from_sizes(dp_size=2, tp_size=2)
        with use_runtime(LocalRuntime(RuntimeSettings(global_device_mesh=mesh), Launch(0, 4, 0, 2))):
            assert get_device_placement().splitlines() == [
                "local runtime, 4 ranks, DeviceMesh(4 ranks: dp=2, tp=2)",
                "rank  node  device  data  dp  tp",
                "0     0     cpu     0     0   0",
                "1     0     cpu     0     0   1",
                "2     1     cpu     1     1   0",
                "3     1     cpu     1     1   1",
            ]


class TestSeed:
    def test_it_makes_random_numbers_repeat(self):
        torch = pytest.importorskip("torch")
        np = pytest.importorskip("numpy")

        def numbers():
            initialize(seed=7).ensure_process_group()
            return random.random(), np.random.rand(), torch.rand(1).item()

        assert numbers() == numbers()

    def test_none_leaves_random_numbers_alone(self):
        random.seed(3)
        expected = random.random()
        random.seed(3)
        initialize(seed=None)
        assert random.random() == expected

    def test_without_initialize_nothing_is_seeded(self):
        random.seed(3)
        expected = random.random()
        random.seed(3)
        current_runtime().ensure_process_group()
        assert random.random() == expected

    def test_a_library_is_seeded_once(self):
        torch = pytest.importorskip("torch")
        runtime = initialize(seed=7)
        runtime.ensure_process_group()
        first = torch.rand(1)
        runtime.ensure_process_group()
        assert torch.rand(1) != first

    def test_what_is_imported_later_is_seeded_when_a_model_asks_for_it(self):
        pytest.importorskip("torch")
        code = (
            "import sys; from twinkle import initialize; runtime = initialize(seed=7); assert 'torch' not in sys.modules\n"
            "import torch; runtime.ensure_process_group(); print(torch.initial_seed())"
        )
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "7"

    def test_full_determinism_reaches_torch(self, monkeypatch):
        torch = pytest.importorskip("torch")
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
        try:
            initialize(full_determinism=True).ensure_process_group()
            assert torch.are_deterministic_algorithms_enabled()
        finally:
            torch.use_deterministic_algorithms(False)


class Kept(Notifier):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def __call__(self, message, **details):
        self.messages.append(f"{details['event']}: {message}")


class TestNotifier:
    def test_it_is_told_when_the_run_begins_and_ends(self):
        kept = Kept()
        initialize(name="sft", notifier=kept)
        assert kept.messages == ["begin: Run sft began: local runtime, DeviceMesh(1 rank)"]
        initialize()
        assert kept.messages[1:] == ["end: Run sft ended"]

    def test_it_is_told_when_the_run_fails_and_the_traceback_is_still_shown(self):
        code = (
            "from twinkle import initialize\n"
            "initialize(notifier=lambda message, **details: print(message))\n"
            "raise ValueError('no more hf_abcdefghijklmnopqrstuvw')"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.stdout.splitlines()[1:] == ["A run failed: ValueError: no more ***"]
        assert "Traceback" in done.stderr
        assert done.returncode == 1

    def test_it_is_told_when_the_process_ends(self):
        code = "from twinkle import initialize\ninitialize(notifier=lambda message, **details: print(details['event']))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["begin", "end"]

    def test_one_that_fails_is_logged_and_ends_nothing(self, caplog):
        def broken(message, **details):
            raise OSError("no network")

        hook = sys.excepthook
        initialize(notifier=broken)
        assert "could not send" in caplog.text
        initialize()
        assert sys.excepthook is hook

    def test_only_the_master_tells(self):
        kept = Kept()
        LocalRuntime(RuntimeSettings(notifier=kept), Launch(1, 2, 1, 2)).notices.begin("here", {})
        assert kept.messages == []


def talk():
    import torch

    runtime = current_runtime()
    mesh = DeviceMesh.from_sizes(world_size=runtime.world_size, tp_size=2)
    rank = runtime.rank
    data = runtime.process_group("dp", "fsdp", mesh=mesh)
    return {
        "rank": (rank, is_master()),
        "mesh": runtime.device_mesh.dp_size,
        "objects": runtime.all_gather_object({"rank": rank}),
        "broadcast": runtime.broadcast_object(f"from {rank}", source=1),
        "sum": runtime.all_reduce(torch.tensor([1.0, rank])).tolist(),
        "mean": runtime.all_reduce(torch.tensor(float(rank)), "mean").item(),
        "max": runtime.all_reduce(torch.tensor(rank), "max").item(),
        "data": runtime.all_reduce(torch.tensor(rank), group=data).item(),
        "again": runtime.process_group("dp", "fsdp", mesh=mesh) is data,
        "barrier": runtime.barrier(),
    }


def gather_over_data():
    runtime = initialize(global_device_mesh=DeviceMesh.from_sizes(dp_size=2, pp_size=2))
    return runtime.gather_data(runtime.rank)


def torch_mesh():
    runtime = initialize(global_device_mesh=DeviceMesh.from_sizes(dp_size=2, tp_size=2))
    mesh = runtime.torch_mesh()
    return mesh.get_local_rank("dp"), mesh.get_local_rank("tp"), mesh["tp"].mesh.tolist(), runtime.torch_mesh() is mesh


def set_up_by_somebody_else():
    import torch.distributed as dist

    dist.init_process_group("gloo")
    runtime = initialize()
    gathered = runtime.all_gather_object(runtime.rank)
    runtime.close()
    still_there = dist.is_initialized()
    dist.destroy_process_group()
    return gathered, still_there


def initialize_with_three_ranks():
    initialize(global_device_mesh=DeviceMesh.from_sizes(dp_size=3))


def seeds_of_ranks():
    import torch

    initialize(seed=11).ensure_process_group()
    return torch.rand(1).item()


class TestRanks:
    def test_they_talk(self):
        pytest.importorskip("torch")
        for rank, found in enumerate(run_ranks(talk, 4)):
            assert found == {
                "rank": (rank, rank == 0),
                "mesh": 4,
                "objects": [{"rank": 0}, {"rank": 1}, {"rank": 2}, {"rank": 3}],
                "broadcast": "from 1",
                "sum": [4.0, 6.0],
                "mean": 1.5,
                "max": 3,
                "data": 2 if rank % 2 == 0 else 4,
                "again": True,
                "barrier": None,
            }

    def test_one_of_each_data_rank_speaks_for_it(self):
        assert run_ranks(gather_over_data, 4) == [[2, 3]] * 4

    def test_the_torch_mesh_has_the_same_places(self):
        assert run_ranks(torch_mesh, 4) == [
            (0, 0, [0, 1], True),
            (0, 1, [0, 1], True),
            (1, 0, [2, 3], True),
            (1, 1, [2, 3], True),
        ]

    def test_torch_distributed_that_somebody_else_set_up_is_used_and_left(self):
        assert run_ranks(set_up_by_somebody_else, 2) == [([0, 1], True)] * 2

    def test_all_have_the_same_seed(self):
        assert len(set(run_ranks(seeds_of_ranks, 2))) == 1

    def test_a_mesh_that_does_not_fit_is_an_error_on_each(self):
        with pytest.raises(RankError, match=r"dp=3 needs 3 process.*but 2 were started"):
            run_ranks(initialize_with_three_ranks, 2)

    def test_a_world_of_one_has_no_torch_mesh(self):
        with pytest.raises(MeshError, match="world of one"):
            LocalRuntime().torch_mesh()


def test_the_core_works_without_torch_and_numpy():
    code = (
        "import sys\n"
        "for name in ('torch', 'numpy', 'transformers'):\n    sys.modules[name] = None\n"
        "import twinkle\n"
        "for name in twinkle.__all__:\n    getattr(twinkle, name)\n"
        "runtime = twinkle.initialize(full_determinism=True)\n"
        "runtime.ensure_process_group(); runtime.barrier()\n"
        "from twinkle.dispatch import collect, dispatch\n"
        "calls = dispatch('slice', (), {'inputs': [1, 2, 3]}, None, 2)\n"
        "print(collect('flatten', [kwargs['inputs'] for _, kwargs in calls]), twinkle.get_device_placement())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={DEVICE_VARIABLE: "cpu", "PATH": ""}
    )
    assert done.stdout.startswith("[1, 2, 3] local runtime, 1 rank")


def test_the_public_names_are_there():
    assert twinkle.initialize is initialize
