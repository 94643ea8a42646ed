"""The places of a sweep's runs: GPUs as nvidia-smi lists them, here a program that prints a listing."""

import os
import subprocess
import sys

import pytest
from conftest import environment

from launch import cli, cores, gpus, local
from trainer.errors import DeviceError

TWO = "GPU 0: NVIDIA H200 (UUID: GPU-aa11)\nGPU 1: NVIDIA H200 (UUID: GPU-bb22)\n"
SPLIT = ("GPU 0: NVIDIA A100 (UUID: GPU-aa11)\n  MIG 3g.20gb     Device  0: (UUID: MIG-c1)\n"
         "  MIG 3g.20gb     Device  1: (UUID: MIG-c2)\nGPU 1: NVIDIA A100 (UUID: GPU-bb22)\n")


@pytest.mark.parametrize("listing, outer, expected", [
    (TWO, None, ["0", "1"]), (SPLIT, None, ["MIG-c1", "MIG-c2", "1"]), ("", None, []), (TWO, "1", ["1"]),
    (TWO, "1, 0", ["1", "0"]), (TWO, "0,7,1", ["0"]), (TWO, "", []), (TWO, "-1", []), (TWO, "NoDevFiles", []),
    (TWO, "GPU-bb", ["GPU-bb"]), (SPLIT, "MIG-c2", ["MIG-c2"]), ("", "0", [])])
def test_the_gpus_that_a_sweep_sees(listing, outer, expected):
    assert gpus.visible(listing, outer) == expected


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Puts a program of that name first in the path, which prints a listing."""
    def install(listing, code=0):
        (tmp_path / "bin").mkdir()
        program = tmp_path / "bin/nvidia-smi"
        program.write_text(f"#!/bin/sh\ncat <<'END'\n{listing}END\nexit {code}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return install


def places(*arguments):
    slots, each = gpus.slots(*arguments)
    return [(slot.name, slot.environment.get("CUDA_VISIBLE_DEVICES")) for slot in slots], each


def test_a_run_at_a_time_on_each_gpu(nvidia_smi):
    nvidia_smi("".join(f"GPU {number}: NVIDIA H200 (UUID: GPU-{number})\n" for number in range(5)))
    assert places("all", 1, 0) == ([(f"GPU {number}", str(number)) for number in range(5)], 1)
    assert places("all", 2, 0) == ([("GPU 0+1", "0,1"), ("GPU 2+3", "2,3")], 2)
    assert places("4,1", 1, 0) == ([("GPU 4", "4"), ("GPU 1", "1")], 1)
    assert places("all", 1, 2) == ([("GPU 0", "0"), ("GPU 1", "1")], 1)
    assert places("none", 1, 2) == ([("CPU 0", None), ("CPU 1", None)], 0)
    assert gpus.slots("all", 1, 1)[0][0].environment["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    for arguments in (("7", 1, 0), ("all", 6, 0), ("all", 2, 3)):
        with pytest.raises(DeviceError):
            gpus.slots(*arguments)


def test_parts_of_a_gpu_do_not_go_together(nvidia_smi):
    """CUDA shows a process one of them, whatever CUDA_VISIBLE_DEVICES lists."""
    nvidia_smi(SPLIT + "GPU 2: NVIDIA A100 (UUID: GPU-cc33)\n")
    assert places("all", 1, 2)[0] == [("GPU MIG-c1", "MIG-c1"), ("GPU MIG-c2", "MIG-c2")]
    assert places("1,2", 2, 0) == ([("GPU 1+2", "1,2")], 2)
    for wanted in ("all", "MIG-c1,MIG-c2", "1,MIG-c1"):
        with pytest.raises(DeviceError, match="sees one part of a split GPU"):
            gpus.slots(wanted, 2, 0)


def test_a_driver_that_fails_is_no_machine_without_gpus(nvidia_smi):
    nvidia_smi("Failed to initialize NVML\n", code=255)
    with pytest.raises(DeviceError, match="ends with 255: Failed to initialize NVML"):
        gpus.slots("all", 1, 0)


def test_a_machine_without_gpus(nvidia_smi):
    nvidia_smi("No devices were found\n", code=6)
    assert places("all", 1, 0) == ([("CPU", None)], 0)
    with pytest.raises(DeviceError, match="needs GPUs"):
        gpus.slots("all", 2, 0)


def test_a_lost_device_means_another_start_elsewhere(tmp_path, nvidia_smi):
    nvidia_smi(TWO)
    (tmp_path / "file.sweep").write_text("--dataset=shapes\n--model=small_models:smooth\n")
    more = {name: value for name, value in environment().items() if name != "CUDA_VISIBLE_DEVICES"}
    done = subprocess.run([sys.executable, "-m", "launch.sweep", "file.sweep", "--max_restarts=1", "--slots=2"],
                          cwd=tmp_path, env=more, text=True, capture_output=True, timeout=100)
    assert done.returncode == 69, done.stdout + done.stderr
    assert "2 at a time: GPU 0, GPU 1" in done.stdout and "run: on GPU 0" in done.stdout
    assert "--num_gpus=1 asks for 1 GPU" in done.stdout and "run: on GPU 1, start 2" in done.stdout


@pytest.mark.parametrize("words, gpus_each, numbers", [
    (["--num_workers=0"], "--num_gpus=1", ["0", "1", "2", "3"]),
    (["--num_workers=2"], "--num_gpus=2", ["0,1", "2,3"])])
def test_workers_of_this_machine_share_gpus_and_cores(nvidia_smi, monkeypatch, words, gpus_each, numbers):
    nvidia_smi("".join(f"GPU {number}: NVIDIA H200 (UUID: GPU-{number})\n" for number in range(4)))
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(1, 10)))
    options, arguments, config = cli.parse(local.Options, [*words, "--", "--dataset=shapes", "--batch_size=64"])
    specs = local.worker_specs(options, config, arguments)
    assert [spec.environment["CUDA_VISIBLE_DEVICES"] for spec in specs] == numbers and gpus_each in arguments
    assert [core for spec in specs for core in spec.cpus] == list(range(1, 9))
    assert len({len(spec.cpus) for spec in specs}) == 1


def test_a_worker_for_each_gpu_needs_gpus(nvidia_smi, capsys):
    nvidia_smi("No devices were found\n", code=6)
    assert local.main(["--num_workers=0", "--", "--dataset=shapes"]) == 69
    assert "one worker for each GPU; none is visible" in capsys.readouterr().err


@pytest.mark.parametrize("available, count, shares", [
    ({0, 1, 2, 3, 4}, 2, [(0, 1), (2, 3)]), ({7}, 2, [(), ()]), ({3, 5}, 1, [(3, 5)])])
def test_cores_are_shared_equally(monkeypatch, available, count, shares):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: available)
    assert cores.shares(count) == shares
