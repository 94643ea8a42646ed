"""Disks that are full, or fill up, or can't be written: real ones, small."""

import ctypes
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import runs
from cases import long
from conftest import environment
from image_files import class_folders
from runs import assert_equal_runs, finish

from trainer.storage.folder_lock import FolderLock
from trainer.storage.manifest import read_manifest, seal

FLAGS = ("--dataset=small_data:few", "--model=small_models:normalized", "--batch_size=16", "--eval_every_epochs=0.2",
         "--log_every_steps=4", "--checkpoint_every_steps=20", "--num_gpus=0", "--ledger")
NO_EXPORT = (*FLAGS, "--export=none", "--max_steps=400")


@pytest.fixture
def disk(tmp_path):
    """Mounts a disk of some KiB; a function that returns its folder."""
    mounted = []

    def mount(size):
        folder = tmp_path / "disk"
        folder.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", folder], capture_output=True)
        if done.returncode:
            pytest.skip("needs the right to mount a small disk: run the tests as root")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(folder, leave=0):
    """Fills a disk but for some bytes."""
    size = max(0, os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize - leave)
    (folder / "filler").write_bytes(b"x" * size)


def test_no_room_from_the_start(disk):
    folder = disk(256)
    _, err = finish(runs.start(folder, *NO_EXPORT), 74)
    assert "no room for a checkpoint: it needs 1." in err and "fix: make room" in err


def test_a_disk_that_fills_up_keeps_the_old_checkpoint(disk, tmp_path):
    through = tmp_path / "through"
    through.mkdir()
    finish(runs.start(through, *NO_EXPORT), 0)
    folder = disk(8 * 1024)
    process = runs.start(folder, *NO_EXPORT)
    manifests = folder / "run/checkpoints"
    while not list(manifests.glob("step-*/manifest.json")):
        assert process.poll() is None, process.communicate()
    fill(folder)
    _, err = finish(process, 74)
    assert "fix: " in err and ("No space left" in err or "no room" in err)
    sound = [path.parent for path in manifests.glob("step-*/manifest.json")]
    assert sound and all(read_manifest(path)[0] for path in sound)
    (folder / "filler").unlink()
    out, _ = finish(runs.start(folder, *NO_EXPORT), 0)
    assert "resuming from step" in out
    assert_equal_runs(folder, through)


def test_no_room_for_the_exports(disk):
    folder = disk(8 * 1024)
    finish(runs.start(folder, *FLAGS, "--export=none", "--max_steps=20"), 0)
    before = json.loads((folder / "run/result.json").read_text())
    fill(folder, 1_200_000)
    _, err = finish(runs.start(folder, *FLAGS, "--max_steps=20"), 74)
    assert "no room for the exports" in err
    assert not list((folder / "run").glob("*export*"))
    (folder / "filler").unlink()
    finish(runs.start(folder, *FLAGS, "--max_steps=20"), 0)
    after = json.loads((folder / "run/result.json").read_text())
    assert after["eval_accuracy"] == before["eval_accuracy"] and len(after["exports"]) == 3


def give_up_overriding_permissions():
    """Root may write anywhere; a process that gave up that right, and those that it becomes, may not."""
    if os.geteuid() == 0:
        for capability in (1, 2):  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
            assert ctypes.CDLL(None).prctl(24, capability, 0, 0, 0) == 0  # PR_CAPBSET_DROP


def test_a_folder_that_may_not_be_written(tmp_path):
    os.chmod(tmp_path, 0o555)
    done = subprocess.run([sys.executable, "-X", "importtime", "-m", "trainer.main", "--dataset=shapes",
                           f"--model_dir={tmp_path}/run"], env=environment(), text=True, capture_output=True,
                          timeout=100, preexec_fn=give_up_overriding_permissions)
    os.chmod(tmp_path, 0o755)
    assert done.returncode == 74 and "Permission denied" in done.stderr, done.stderr
    assert "fix: choose a path that you may use" in done.stderr
    assert "tensorflow" not in done.stderr  # where every import is listed


def test_a_checkpoint_that_may_not_be_read_is_not_taken_for_damaged(tmp_path):
    folder = tmp_path / "checkpoints/step-00000007"
    folder.mkdir(parents=True)
    (folder / "state").write_bytes(b"abc")
    seal(folder, {"step": 7})
    os.chmod(folder / "state", 0)
    done = subprocess.run([sys.executable, "-m", "trainer", "verify", f"--model_dir={tmp_path}"], env=environment(),
                          text=True, capture_output=True, timeout=100, preexec_fn=give_up_overriding_permissions)
    assert done.returncode == 74 and "Permission denied" in done.stderr and "damaged" not in done.stdout


def test_the_lock_is_left_where_it_cannot_be_given_back(disk):
    folder = disk(1024)
    held = FolderLock(folder)
    held.take()
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    held.give_back()
    assert (folder / ".lock/00000001").exists()


def test_a_read_only_disk(disk):
    folder = disk(1024)
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    _, err = finish(runs.start(folder, *NO_EXPORT), 74)
    assert "Read-only file system" in err and "choose a folder that can be written" in err


@pytest.fixture(scope="module")
def failing_reads(tmp_path_factory):
    """Builds the library that lets reads of files fail; a function of a part of their paths to the environment."""
    if not shutil.which("cc"):
        pytest.skip("needs a C compiler to let reads fail: apt-get install gcc libc6-dev")
    library = tmp_path_factory.mktemp("eio") / "eio.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, Path(__file__).with_name("eio.c"), "-ldl"],
                   check=True)
    return lambda part, **more: {"LD_PRELOAD": str(library), "EIO_PATH": part, **more}


@pytest.mark.parametrize("file", ["state.data-00000-of-00001", long("manifest.json")])
def test_a_disk_that_answers_with_an_error_damages_nothing(failing_reads, tmp_path, file):
    flags = (*FLAGS, "--export=none", "--max_steps=40")
    finish(runs.start(tmp_path, *flags), 0)
    newest = tmp_path / "run/checkpoints/step-00000040"
    before = {path: path.read_bytes() for path in newest.iterdir()}
    more = (*FLAGS, "--export=none", "--max_steps=44")
    _, err = finish(runs.start(tmp_path, *more, **failing_reads(f"step-00000040/{file}")), 74)
    assert "Input/output error" in err and "damaged" not in err
    assert {path: path.read_bytes() for path in newest.iterdir()} == before
    out, _ = finish(runs.start(tmp_path, *more), 0)
    assert "resuming from step 40" in out


@pytest.mark.parametrize("when, times, code, says", [
    ("a header is read", None, 74, "Input/output error"),
    long("an image is decoded", None, 74, "Input/output error"),
    long("an image is decoded", "2", 74, "it failed a moment ago, and succeeds now"),
    ("an image is decoded", "1", 0, "")])
def test_an_image_that_cannot_be_read_for_a_moment_is_not_bad(failing_reads, tmp_path, when, times, code, says):
    """Also where bad images are allowed: the run ends, or reads it again, and never goes on without that image."""
    for split, count in (("train", 40), ("test", 10)):
        class_folders(tmp_path / "images" / split, count)
    image = sorted((tmp_path / "images/train").rglob("*.*"))[7]
    flags = ("--dataset=folder", "--data_dir=images", "--image_size=32", "--model=small_models:normalized",
             "--batch_size=8", "--num_gpus=0", "--export=none", "--max_bad_records=9")
    if when == "an image is decoded":  # what the headers say is remembered in the model_dir, and not read again
        finish(runs.start(tmp_path, *flags, "--max_steps=1"), 0)
    failing = failing_reads(str(image), **({"EIO_TIMES": times} if times else {}))
    _, err = finish(runs.start(tmp_path, *flags, "--max_steps=8", **failing), code)
    assert says in err and (not code or image.name in err) and "left out" not in err
    finish(runs.start(tmp_path, *flags, "--max_steps=8"), 0)
