"""Who has a folder: races of real processes, with and without flock, over what dead runs leave."""

import fcntl
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import environment
from hypothesis import given, settings
from hypothesis import strategies as st
from racing import race

from trainer.errors import BusyError
from trainer.storage import folder_lock
from trainer.storage.folder_lock import FolderLock

HOLD = ("import sys, time; from trainer.storage.folder_lock import FolderLock; "
        "held = FolderLock(sys.argv[1]); held.take(); "
        "print('taken', flush=True); time.sleep(60)")


def newest(folder):
    return max(path for path in (folder / ".lock").iterdir() if path.name.isdecimal())


@pytest.fixture
def owner(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], env=environment(), stdout=subprocess.PIPE,
                          text=True) as process:
        assert process.stdout.readline() == "taken\n"
        yield process
        process.kill()


@pytest.fixture
def without_flock(monkeypatch):
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)


@pytest.mark.slow
def test_a_living_owner_is_named(owner, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / ".lock").rglob("*")}
    owner.send_signal(signal.SIGSTOP)  # it lives, if it doesn't run
    with pytest.raises(BusyError, match=f"in use by process {owner.pid} on"):
        FolderLock(tmp_path).take()
    assert before.keys() == set((tmp_path / ".lock").rglob("*"))
    owner.send_signal(signal.SIGCONT)


@pytest.mark.slow
def test_a_living_owner_without_flock(without_flock, owner, tmp_path):
    with pytest.raises(BusyError, match=f"in use by process {owner.pid} on"):
        FolderLock(tmp_path).take()


@pytest.mark.slow
def test_a_copy_of_a_folder_in_use_has_its_own_lock_and_a_moved_folder_keeps_its(owner, tmp_path_factory, tmp_path):
    away = tmp_path_factory.mktemp("away")
    shutil.copytree(tmp_path, away / "copy")
    copy = FolderLock(away / "copy", beat=0.1, patience=0.5)
    copy.take()
    copy.require()
    with pytest.raises(BusyError, match=f"in use by process {os.getpid()} on"):
        FolderLock(away / "copy").take()
    copy.give_back()
    tmp_path.rename(away / "moved")
    tmp_path.mkdir()
    owner.send_signal(signal.SIGSTOP)
    with pytest.raises(BusyError, match=f"in use by process {owner.pid} on"):
        FolderLock(away / "moved").take()


@pytest.mark.slow
def test_the_dead_and_those_who_gave_it_back_don_t_keep_it(without_flock, owner, tmp_path):
    owner.kill()  # a zombie first: nobody has waited for it
    time.sleep(0.2)
    first = FolderLock(tmp_path)
    first.take()
    first.require()
    first.give_back()
    second = FolderLock(tmp_path)
    second.take()
    assert [path.name for path in (tmp_path / ".lock").iterdir()] == ["00000003"]
    second.give_back()


def test_what_killed_processes_left_is_removed_in_time(tmp_path):
    (tmp_path / ".lock").mkdir()
    for name, age in ((".old", 1000), ("00000003.new", 1000), (".new", 0)):
        (tmp_path / ".lock" / name).touch()
        os.utime(tmp_path / ".lock" / name, (time.time() - age,) * 2)
    held = FolderLock(tmp_path)
    held.take()
    assert {path.name for path in (tmp_path / ".lock").iterdir()} == {".new", "00000001"}
    held.give_back()


def elsewhere(folder, number=1):
    """A lock of a process that can't be seen from here."""
    (folder / ".lock").mkdir(exist_ok=True)
    path = folder / f".lock/{number:08d}"
    path.write_text(json.dumps({"pid": 1, "host": "far", "place": "another boot", "started": 5}))
    return path


@pytest.mark.slow
def test_an_owner_elsewhere_is_alive_as_long_as_its_heart_beats(tmp_path, capfd):
    path = elsewhere(tmp_path)
    beating = subprocess.Popen([sys.executable, "-c", "import os, sys, time\nwhile True: os.utime(sys.argv[1]);"
                                "time.sleep(0.1)", path])
    try:
        time.sleep(0.3)
        with pytest.raises(BusyError, match="in use by process 1 on far"):
            FolderLock(tmp_path, patience=2).take()
    finally:
        beating.kill()
        beating.wait()
    held = FolderLock(tmp_path, patience=0.5)
    held.take()
    assert "waiting 0 s to see whether it is alive" in capfd.readouterr().err
    held.give_back()


@pytest.mark.slow
def test_a_clock_that_jumps_doesn_t_make_an_owner_dead(tmp_path):
    path = elsewhere(tmp_path)
    os.utime(path, (0, 0))  # a heartbeat of 1970 is as good as any, if it is followed by another
    beating = subprocess.Popen([sys.executable, "-c", "import os, sys, time\nfor n in range(100, 0, -1):\n"
                                "    os.utime(sys.argv[1], (n, n)); time.sleep(0.1)", path])
    try:
        with pytest.raises(BusyError):
            FolderLock(tmp_path, patience=2).take()
    finally:
        beating.kill()
        beating.wait()


def test_an_owner_that_was_taken_for_dead_finds_out(without_flock, tmp_path):
    held = FolderLock(tmp_path, beat=0.05)
    held.take()
    held.require()
    elsewhere(tmp_path, 2)
    with pytest.raises(BusyError, match="was taken over, because .* by process 1 on far"):
        held.require()
    time.sleep(0.3)
    assert held.lost
    held.give_back()
    assert json.loads(newest(tmp_path).read_text())["host"] == "far"


def test_the_heart_beats(tmp_path):
    held = FolderLock(tmp_path, beat=0.05)
    held.take()
    before = newest(tmp_path).stat().st_mtime_ns
    time.sleep(0.3)
    assert not held.lost
    assert newest(tmp_path).stat().st_mtime_ns > before
    held.give_back()


@pytest.mark.parametrize("flock_works", [True, False])
def test_of_many_one_wins(tmp_path, flock_works):
    folders = [tmp_path / str(number) for number in range(20)]
    for number, folder in enumerate(folders):
        folder.mkdir()
        if number % 4:  # a dead run's, garbage, one that was given back; or nothing at all
            elsewhere(folder, 7).write_text(json.dumps(
                [None, {**folder_lock._this_process(), "pid": 2**22}, ["?"], {"given_back": True}][number % 4]))
    context = multiprocessing.get_context("spawn")
    ready, winners = context.Barrier(5), context.Queue()
    racers = [context.Process(target=race, args=(folders, ready, winners, flock_works)) for _ in range(5)]
    for racer in racers:
        racer.start()
    results = [winners.get(timeout=60) for _ in range(5 * len(folders))]
    for racer in racers:
        racer.join()
    won = [number for number, wins in results if wins]
    assert sorted(won) == list(range(20))


@settings(max_examples=60, deadline=None)
@given(names=st.lists(st.one_of(st.integers(0, 10**20).map(str), st.text("0123456789abc.-²", min_size=1, max_size=20)),
                      max_size=4),
       content=st.one_of(st.binary(max_size=60), st.recursive(
           st.none() | st.booleans() | st.integers() | st.text(max_size=5),
           lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
               st.sampled_from(["pid", "host", "place", "started", "given_back"]), inner, max_size=5),
           max_leaves=8).map(lambda value: json.dumps(value).encode())))
def test_whatever_lies_there(tmp_path_factory, names, content):
    folder = tmp_path_factory.mktemp("any")
    (folder / ".lock").mkdir()
    for name in names:
        if name not in (".", ".."):
            (folder / ".lock" / name).write_bytes(content)
    held = FolderLock(folder, patience=0.01)
    held.take()
    with pytest.raises(BusyError):
        FolderLock(folder, patience=0.01).take()
    held.require()
    held.give_back()
