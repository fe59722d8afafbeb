"""Which process this is, on which kind of device, in which group."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

from twinkle import DeviceGroup, Platform
from twinkle.device_group import check_groups
from twinkle.errors import ConfigError
from twinkle.launch import Launch
from twinkle.platform import DEVICE_VARIABLE


class TestLaunch:
    def test_without_a_launcher_it_is_a_world_of_one(self):
        assert Launch.from_environment({}) == Launch(0, 1, 0, 1)

    def test_torchruns_variables_are_understood(self):
        environ = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
        assert Launch.from_environment(environ) == Launch(5, 8, 1, 4)

    def test_without_local_variables_all_ranks_are_on_this_host(self):
        assert Launch.from_environment({"RANK": "1", "WORLD_SIZE": "2"}) == Launch(1, 2, 1, 2)

    @pytest.mark.parametrize(
        ("environ", "name"),
        [
            ({"WORLD_SIZE": "2"}, "RANK is not"),
            ({"WORLD_SIZE": "two", "RANK": "0"}, "WORLD_SIZE is 'two'"),
            ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK=2 and WORLD_SIZE=2"),
            ({"WORLD_SIZE": "0", "RANK": "0"}, "WORLD_SIZE=0"),
            ({"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "3"}, "LOCAL_RANK=3"),
        ],
    )
    def test_what_cannot_be_is_an_error_that_names_the_variable(self, environ, name):
        with pytest.raises(ConfigError, match=name):
            Launch.from_environment(environ)


class TestPlatform:
    def test_cpu_is_always_there(self):
        assert Platform.named("cpu").is_available()
        assert Platform.available()[-1].device_type == "cpu"

    @pytest.mark.parametrize(("device_type", "backend"), [("cpu", "gloo"), ("cuda", "nccl"), ("npu", "hccl"), ("mps", "gloo")])
    def test_each_has_a_backend_that_joins_processes(self, device_type, backend):
        assert Platform.named(device_type).backend == backend

    def test_the_current_one_is_the_best_that_is_available(self, monkeypatch):
        monkeypatch.delenv(DEVICE_VARIABLE, raising=False)
        assert Platform.current() == Platform.available()[0]

    def test_a_variable_overrides_it(self, monkeypatch):
        monkeypatch.setenv(DEVICE_VARIABLE, "cpu")
        platform = Platform.current()
        assert (platform.device_type, platform.device_count(), platform.device(3)) == ("cpu", 1, "cpu")

    def test_a_platform_that_does_not_exist_is_an_error_that_lists_them(self, monkeypatch):
        monkeypatch.setenv(DEVICE_VARIABLE, "tpu")
        with pytest.raises(ConfigError, match=r"no platform 'tpu'\. Platforms: cuda, npu, mps, cpu"):
            Platform.current()

    def test_a_platform_that_is_not_here_is_an_error_that_says_what_is(self, monkeypatch):
        missing = next(row for row in ("npu", "mps", "cuda") if not Platform.named(row).is_available())
        monkeypatch.setenv(DEVICE_VARIABLE, missing)
        with pytest.raises(ConfigError, match=f"no {missing} device that.*has: .*cpu"):
            Platform.current()

    @pytest.mark.parametrize(("count", "local_rank", "device"), [(4, 3, "cuda:3"), (1, 3, "cuda:0")])
    def test_a_local_rank_has_the_device_of_its_number_or_the_only_one_that_it_sees(self, monkeypatch, count, local_rank, device):
        monkeypatch.setattr(Platform, "device_count", lambda self: count)
        assert Platform.named("cuda").device(local_rank) == device

    def test_more_ranks_than_devices_are_an_error_that_names_the_variable(self, monkeypatch):
        monkeypatch.setattr(Platform, "device_count", lambda self: 2)
        with pytest.raises(ConfigError, match=r"Local rank 2 has no cuda device: 2 can be seen.*CUDA_VISIBLE_DEVICES"):
            Platform.named("cuda").device(2)

    def test_finding_the_platform_of_a_machine_without_accelerators_needs_no_torch(self):
        code = (
            "import sys; sys.modules['torch'] = None\n"  # importing it would raise
            "from twinkle import Platform; print(Platform.named('cpu').is_available(), Platform.current())"
        )
        found = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"CUDA_VISIBLE_DEVICES": "", "PATH": ""}
        )
        assert found.stdout.split()[0] == "True"
        assert "cuda" not in found.stdout


class TestDeviceGroup:
    def test_a_number_of_ranks_means_the_first_ones(self):
        assert DeviceGroup("model", 4, "CUDA") == DeviceGroup("model", [0, 1, 2, 3], "cuda")

    def test_workers_may_hold_several_devices(self):
        assert DeviceGroup("sampler", 8, "cuda", gpus_per_worker=2).world_size == 4

    def test_it_is_a_value(self):
        group = DeviceGroup("model", 2, "npu", visible_devices=[4, 5])
        assert group.visible_devices == "4,5"
        assert pickle.loads(pickle.dumps(group)) == group
        assert len({group, DeviceGroup("model", (0, 1), "npu", "4,5")}) == 1
        with pytest.raises(AttributeError):
            group.name = "other"

    def test_for_people_it_is_a_line(self):
        assert str(DeviceGroup("a", [0, 1, 2, 5], "cuda", gpus_per_worker=2)) == "a: 4 × cuda (ranks 0-2, 5, 2 a worker)"

    @pytest.mark.parametrize("ranks", [0, -1, [], [0, 0], [-1, 0], ["a"], None, 1.5])
    def test_ranks_that_cannot_be_are_named(self, ranks):
        with pytest.raises(ConfigError, match="'model'"):
            DeviceGroup("model", ranks)

    def test_devices_that_workers_cannot_share_are_an_error_with_what_fits(self):
        with pytest.raises(ConfigError, match="gpus_per_worker may be 1, 2, 3, 6"):
            DeviceGroup("model", 6, gpus_per_worker=4)

    def test_it_needs_a_name(self):
        with pytest.raises(ConfigError, match="name"):
            DeviceGroup("", 1)

    def test_two_of_one_name_are_an_error(self):
        with pytest.raises(ConfigError, match="named 'a'"):
            check_groups([DeviceGroup("a", 1), DeviceGroup("a", 2)])

    def test_something_else_than_a_group_is_an_error(self):
        with pytest.raises(ConfigError, match="no DeviceGroup"):
            check_groups(["model"])
