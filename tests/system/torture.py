"""Kills a run everywhere and lets it go on; `make torture` is the long form, test_torture.py the short one.

    python tests/system/torture.py save      at every write, flush and rename from one save to the next
    python tests/system/torture.py all       at every one from the start to the end of a run
    python tests/system/torture.py export    likewise, while a finished run exports
    python tests/system/torture.py random    at random moments of runs from start to exports, by SIGKILL and SIGTERM

After each kill the same command runs again, and is killed at the next place, until one gets through (in the
part `save`, the first one that goes on does). That run must equal the undisturbed one; then another begins.
After every kill, each checkpoint that claims to be whole must be the undisturbed run's to the byte.
"""

import argparse
import concurrent.futures
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "support"), str(HERE.parent.parent)]

from runs import assert_equal_runs, finish, start  # noqa: E402

from trainer.storage.manifest import read_manifest  # noqa: E402

FLAGS = ("--dataset=small_data:few", "--model=small_models:normalized", "--batch_size=16", "--max_steps=24",
         "--optimizer=sgd", "--learning_rate=0.05", "--augment=flip,crop", "--eval_every_epochs=0.2",
         "--log_every_steps=5", "--checkpoint_every_steps=6", "--keep_checkpoints=2", "--num_gpus=0",
         "--virtual_devices=2", "--ledger")
LONGER = tuple(flag for flag in FLAGS if "max_steps" not in flag and "checkpoint_every" not in flag) + (
    "--max_steps=600", "--checkpoint_every_steps=50")
NO_EXPORT, EXPORT = "--export=none", "--export=h5,keras,saved_model"


class Killer:
    """Starts runs that are killed at one of their operations on files.

    Args:
        folder: Where the compiled library goes.
    """

    def __init__(self, folder):
        self._library = Path(folder) / "killer.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", self._library, HERE / "killer.c", "-ldl"], check=True)

    def run(self, folder, flags, at, log=None):
        """Runs until operation `at`; returns the exit code, -9 if it came so far."""
        more = {"KILL_LOG": str(log)} if log else {}
        process = start(folder, *flags, LD_PRELOAD=str(self._library), KILL_FOLDER=str(folder / "run"),
                        KILL_AT=str(at), **more)
        out, err = process.communicate(timeout=300)
        assert process.returncode in (0, -signal.SIGKILL), out + err
        assert "Traceback" not in err, err
        return process.returncode

    def operations(self, folder, flags):
        """What a run does to its files from start to end: a list of words and paths."""
        log = folder / "operations.txt"
        log.unlink(missing_ok=True)
        assert self.run(folder, flags, 0, log) == 0
        return [line.split(" ", 1)[1] for line in log.read_text().splitlines()]


def undisturbed(folder, flags):
    """Runs to the end, keeping every checkpoint; returns the folder."""
    folder.mkdir()
    finish(start(folder, *flags, "--keep_checkpoints=1000"), 0)
    return folder


def states(folder):
    """Step to the hash of what a sound checkpoint holds."""
    found = {}
    for path in (folder / "run/checkpoints").glob("step-*/manifest.json"):
        manifest, fault = read_manifest(path.parent)
        assert manifest, fault
        found[manifest["step"]] = manifest["files"]["state.data-00000-of-00001"]["sha256"]
    return found


def sweep(killer, scratch, flags, truth, numbers, afresh=False):
    """Kills at each of these operations, one start after the other.

    Args:
        killer: The `Killer`.
        scratch: A folder that isn't there.
        flags: Of the runs.
        truth: The folder of the undisturbed run.
        numbers: Which operations.
        afresh: Whether the start after a kill goes on to the end, and the next kill is of a new run.

    Returns:
        (kills, runs that got through and were equal).
    """
    folder, kills, ends, newest = scratch, 0, 0, 0
    expected = states(truth)
    numbers = list(numbers)
    while numbers or folder.exists():
        at = 0 if not numbers or (afresh and folder.exists()) else numbers[0]
        folder.mkdir(exist_ok=True)
        if killer.run(folder, flags, at) == 0:
            assert_equal_runs(folder, truth)
            shutil.rmtree(folder)
            ends, newest = ends + 1, 0
        else:
            kills, numbers = kills + 1, numbers[1:]
            there = states(folder)
            assert there.items() <= expected.items(), f"operation {at}: {sorted(there)}"
            assert max(there, default=0) >= newest, f"operation {at}: step {newest} was lost"
            newest = max(there, default=0)
    return kills, ends


def sweep_export(killer, scratch, trained, numbers):
    """Kills a trained run at each of these operations while it exports.

    Returns:
        How many kills it were.
    """
    shutil.copytree(trained, scratch)
    flags = (*FLAGS[:-1], "--ledger", EXPORT)
    kills, exported = 0, False
    for at in [*numbers, 0]:
        code = killer.run(scratch, flags, at)
        kills += code != 0
        manifest, fault = read_manifest(scratch / "run/export")
        assert manifest or not (scratch / "run/export").exists(), f"operation {at}: {fault}"
        assert manifest or not exported, f"operation {at}: the export was lost"
        exported = bool(manifest)
        if manifest:
            accuracies = {entry["accuracy"] for entry in manifest["exports"].values()}
            assert len(manifest["exports"]) == 3 and len(accuracies) == 1
    result = json.loads((scratch / "run/result.json").read_text())
    assert {entry["accuracy"] for entry in result["exports"].values()} == {result["eval_accuracy"]}
    left = [path for path in scratch.rglob(".*") if ".lock" not in path.parts]
    assert not left, left
    return kills


def random_stops(scratch, truth, stops, seed, longest):
    """Stops runs with their exports after random times up to `longest` seconds: SIGKILL and SIGTERM in turn.

    Returns:
        (kills, terminations, runs that got through and were equal, the most seconds that a SIGTERM took).
    """
    dice, kills, terms, ends, slowest = random.Random(seed), 0, 0, 0, 0.0
    while kills + terms < stops or scratch.exists():
        scratch.mkdir(exist_ok=True)
        process = start(scratch, *LONGER, EXPORT, fresh=True)
        if kills + terms < stops and not _ends_within(process, dice.uniform(0.2, longest)):
            if kills <= terms:
                process.kill()
                process.communicate()
                kills += 1
                continue
            young, began = not (scratch / "run/log.txt").exists(), time.monotonic()
            process.terminate()
            out, err = process.communicate(timeout=300)
            # The interpreter dies of a signal until it has come to our first line.
            known = (75, 0, -signal.SIGTERM) if young else (75, 0)
            assert process.returncode in known, (process.returncode, out, err)
            assert "Traceback" not in err, err
            terms, slowest = terms + 1, max(slowest, time.monotonic() - began)
            continue
        finish(process, 0)
        assert_equal_runs(scratch, truth)
        manifest, fault = read_manifest(scratch / "run/export")
        assert manifest, fault
        shutil.rmtree(scratch)
        ends += 1
    return kills, terms, ends, round(slowest, 1)


def _ends_within(process, seconds):
    try:
        process.wait(seconds)
        return True
    except subprocess.TimeoutExpired:
        return False


def one_save(operations):
    """The numbers of the operations from the beginning of the second save to that of the third."""
    begins = [number for number, operation in enumerate(operations, 1)
              if operation.startswith("mkdir /checkpoints/step-")]
    first, last = (next(number for number in begins if f"step-{step:08d}" in operations[number - 1])
                   for step in (12, 15))
    return range(first, last)


def main():
    """The long forms; prints what RESULTS.md says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=["save", "all", "export", "random"])
    parser.add_argument("--lanes", type=int, default=2, help="how many at once")
    parser.add_argument("--stops", type=int, default=100, help="of the part random; half are SIGKILL, half SIGTERM")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, concurrent.futures.ThreadPoolExecutor(options.lanes) as pool:
        scratch, lanes = Path(scratch), range(options.lanes)
        killer = Killer(scratch)
        for part in options.parts:
            began = time.monotonic()
            if part == "random":
                truth = undisturbed(scratch / "longer", (*LONGER, EXPORT))
                longest = 1.1 * options.lanes * (time.monotonic() - began)
                jobs = [pool.submit(random_stops, scratch / f"random-{lane}", truth,
                                    len(range(lane, options.stops, options.lanes)), lane, longest) for lane in lanes]
            else:
                (scratch / f"count-{part}").mkdir()
                whole = killer.operations(scratch / f"count-{part}", (*FLAGS, NO_EXPORT))
                if part == "export":
                    trained = scratch / "count-export"
                    copy = scratch / "copy-export"
                    shutil.copytree(trained, copy)
                    whole = killer.operations(copy, (*FLAGS, EXPORT))
                    jobs = [pool.submit(sweep_export, killer, scratch / f"export-{lane}", trained,
                                        range(1 + lane, len(whole) + 1, options.lanes)) for lane in lanes]
                else:
                    truth = undisturbed(scratch / f"truth-{part}", (*FLAGS, NO_EXPORT))
                    numbers = range(1, len(whole) + 1) if part == "all" else one_save(whole)
                    jobs = [pool.submit(sweep, killer, scratch / f"{part}-{lane}", (*FLAGS, NO_EXPORT), truth,
                                        numbers[lane::options.lanes], part == "save") for lane in lanes]
                    whole = numbers
                print(f"{part}: {len(whole)} operations", flush=True)
            print(f"{part}: {[job.result() for job in jobs]} in {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
