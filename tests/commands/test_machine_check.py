"""`doctor` on a machine: what it says of disk, memory and limits, and the form for a bug report."""

import errno
import json
import resource
import shutil

import pytest

from trainer.commands.machine_check import surroundings
from trainer.commands.machine_check.bug_report import form
from trainer.commands.machine_check.surroundings import disk, memory, open_files, shared_memory
from trainer.config import Config
from trainer.errors import StorageError
from trainer.storage.model_dir import ModelDir


def test_a_disk_is_tried_where_the_folder_would_be_and_nothing_stays(tmp_path):
    verdict = disk(tmp_path / "runs/not/there")
    assert f"disk of {tmp_path}: " in verdict.sentence and "MB/s" in verdict.sentence
    assert not list(tmp_path.iterdir())
    verdict.check()


def test_a_folder_that_takes_no_file_ends_it():
    with pytest.raises(StorageError, match="disk of /proc"):
        disk("/proc/runs").check()


def test_a_disk_without_room_or_with_an_error_ends_it(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10**6))
    with pytest.raises(StorageError, match="no room for a checkpoint"):
        disk(tmp_path).check()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10**9))
    assert "may not fit" in disk(tmp_path).trouble
    disk(tmp_path).check()

    def fail(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(surroundings.tempfile, "TemporaryFile", fail)
    with pytest.raises(StorageError, match="Read-only file system"):
        disk(tmp_path).check()


def test_limits_are_warned_of(tmp_path, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 4096))
    assert open_files().lines() == ["256 open files at a time",
                                    "warning: TensorFlow, shards and pipes may need more: ulimit -n 65536"]
    limit = tmp_path / "memory.max"
    limit.write_text(f"{2**30}\n")
    monkeypatch.setattr(surroundings, "_CGROUP_LIMITS", (str(limit),))
    assert "this container may use 1.0" in memory().sentence and "raise the limit" in memory().trouble
    limit.write_text("max\n")
    assert "container" not in memory().sentence
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(total=2**26))
    assert shared_memory(tmp_path).sentence.endswith("holds 64 MiB") and "--shm-size" in shared_memory(tmp_path).trouble


def test_the_form_shows_what_decides_and_no_secret(tmp_path):
    model_dir = ModelDir(tmp_path / "home/run")
    model_dir.root.mkdir(parents=True)
    model_dir.write_config(Config(model="cnn2", model_dir=str(model_dir.root), augment=("flip", "crop")),
                           {"data": {"classes": ["a", "b"], "image_shape": [8, 8, 3]}})
    model_dir.log.write_text("".join(f"line {number}\n" for number in range(50)))
    cluster = {"cluster": {"worker": ["10.1.2.3:9", "10.1.2.4:9"]}, "task": {"type": "worker", "index": 1}}
    text = form(["1 CPU"], model_dir, {
        "HOME": str(tmp_path / "home"), "XLA_FLAGS": "--a", "TF_CONFIG": json.dumps(cluster),
        "LOCKSTEP_TOKEN": "secret", "TF_API_KEY": "secret", "AWS_SECRET": "secret", "PATH": "/bin",
        "TF_VAR_database": "secret", "TF_CLI_ARGS": "secret", "TF_GPU_ALLOCATOR": "cuda_malloc_async"})
    for part in ("1 CPU", "XLA_FLAGS=--a", "TF_GPU_ALLOCATOR=cuda", '"worker": 2',
                 "--model=cnn2", "--augment=flip,crop", "line 49", "line 20\n",
                 "--model_dir=~/run", "What I ran"):
        assert part in text, part
    for part in ("secret", "10.1.2", "line 19\n", str(tmp_path), "PATH=/bin", "--optimizer"):
        assert part not in text, part
    assert text.count("```") == 8 and text.count("<details>") == 4
    model_dir.config.write_text("{")
    assert "config.json can't be read" in form([], model_dir, {}), "and the rest of the form is there"
