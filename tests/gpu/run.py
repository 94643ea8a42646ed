"""Everything that only a GPU can show, in one command: `make test-gpu`.

    python tests/gpu/run.py [--devices=gpu|cpu] [--only=NAME,…] [--out=FOLDER]

Each check is a process of its own, so that an abort costs one check; it ends at its time limit. What each found goes to
the terminal, and all of it to FOLDER/report.md and report.json. `--devices=cpu` runs the same checks on logical CPU
devices that are used as GPUs are, with small models, two at a time: that shows that the checks work, and nothing of a
GPU. Exits with 1 if a check failed, with 69 if there is no GPU.
"""

import argparse
import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import box as boxes
import command_checks
import step_checks

# In this order: what breaks first, first. Seconds are the limit.
CHECKS = {
    "machine": (command_checks.machine, 1800), "start": (command_checks.start_and_exports, 900),
    "ops": (step_checks.ops, 600), "losses": (step_checks.losses, 1200),
    "two devices on one": (step_checks.two_logical_devices, 600), "kills": (command_checks.kills, 900),
    "flat": (step_checks.flat, 600), "memory": (command_checks.memory, 900),
    "lost worker": (command_checks.lost_worker, 600), "profile": (step_checks.profile, 600),
    "speed": (command_checks.speed, 1800)}
_RUNNING = []  # the checks' processes
_MARKS = {"passed": "ok", "failed": "FAILED", "not run": "not run"}


def check_alone(name, box):
    """Runs a check in this process, and prints what it found as the last line; the process ends with it."""
    function, _ = CHECKS[name]
    try:
        words, figures = function(box)
        answer = {"result": "passed", "words": words, "figures": figures}
    except boxes.NotRun as reason:
        answer = {"result": "not run", "words": str(reason), "figures": {}}
    except Exception as error:
        traceback.print_exc()
        answer = {"result": "failed", "words": str(error) or type(error).__name__, "figures": {}}
    print(f"\n{json.dumps(answer)}", flush=True)
    os._exit(0)


def run_check(name, box, out):
    """Runs a check in a process of its own.

    Args:
        name: Its name in `CHECKS`.
        box: The devices; its folder is the check's own.
        out: The folder in which its output is kept, as NAME.log.

    Returns:
        A dict of name, result (passed, failed or not run), words, figures and seconds.
    """
    began = time.monotonic()
    box.folder.mkdir(parents=True)
    words = [sys.executable, __file__, f"--check={name}", f"--folder={box.folder}",
             f"--devices={'cpu' if box.like else 'gpu'}"]
    with open(out / f"{name.replace(' ', '-')}.log", "w+") as log:
        process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                                   env={**box.variables, "TF_CPP_MIN_LOG_LEVEL": "1" if not box.like else "2"})
        _RUNNING.append(process)
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=CHECKS[name][1])
        finally:
            _kill(process)  # what it left, too
            process.wait()
            _RUNNING.remove(process)
        log.seek(0)
        lines = log.read().strip().splitlines()
    try:
        answer = json.loads(lines[-1])
    except (IndexError, ValueError):
        answer = {"result": "failed", "words": f"its process ended with {process.returncode}: {' '.join(lines[-1:])}",
                  "figures": {}}
    return {"name": name, **answer, "seconds": round(time.monotonic() - began, 1)}


def run_all(names, like, out):
    """Runs checks, and writes the report anew after each.

    Args:
        names: Their names in `CHECKS`.
        like: Whether CPU devices stand for GPUs; then two run at a time.
        out: The folder of the report.

    Returns:
        What `run_check` returned, for each.
    """
    rows, about = [], _about(like)
    with tempfile.TemporaryDirectory(prefix="lockstep-gpu-", ignore_cleanup_errors=True) as scratch:
        lanes = ThreadPoolExecutor(2 if like else 1)
        try:
            for row in lanes.map(lambda name: run_check(name, boxes.Box(like, Path(scratch, name)), out), names):
                rows.append(row)
                print(f"{_MARKS[row['result']]:<8} {row['name']:<20} {row['seconds']:>6} s  {_one_line(row['words'])}",
                      flush=True)
                (out / "report.json").write_text(json.dumps({"about": about, "checks": rows}, indent=1))
                (out / "report.md").write_text(report(rows, about))
        finally:
            lanes.shutdown(wait=False, cancel_futures=True)
            for process in list(_RUNNING):  # after Ctrl-C: they are in sessions of their own
                _kill(process)
    return rows


def _kill(process):
    """Ends a check's process, and those that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def report(rows, about):
    """The report as Markdown.

    Args:
        rows: What `run_check` returned.
        about: Lines about the machine.

    Returns:
        The text.
    """
    lines = ["# What the GPUs show", "", *about, "", "| check | result | seconds | found |", "|---|---|---|---|"]
    lines += [f"| {row['name']} | {row['result']} | {row['seconds']} | {_one_line(row['words'])} |" for row in rows]
    for row in rows:
        if row["figures"]:
            lines += ["", f"## {row['name']}", "", "```", json.dumps(row["figures"], indent=1), "```"]
    return "\n".join(lines) + "\n"


def _one_line(words):
    return " ".join(words.split())[:400].replace("|", "/")


def _about(like):
    from importlib.metadata import version

    gpus = [] if like else boxes.machine.gpus(os.environ.get("CUDA_VISIBLE_DEVICES"))
    names = ", ".join(f"{gpu.name} (driver {gpu.driver})" for gpu in gpus)
    return [f"{time.strftime('%Y-%m-%d')}; {'logical CPU devices, used as GPUs are' if like else names}",
            f"Python {platform.python_version()}, TensorFlow {version('tensorflow')}, Keras {version('keras')}"]


def main():
    """Runs the checks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", choices=("gpu", "cpu"), default="gpu", help="cpu: CPU devices used as GPUs are")
    parser.add_argument("--only", default="", help="comma list of checks")
    parser.add_argument("--out", type=Path, default=Path("runs/test-gpu"), help="folder of the report")
    parser.add_argument("--check", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    like = options.devices == "cpu"
    if options.check:
        check_alone(options.check, boxes.Box(like, options.folder))
    names = options.only.split(",") if options.only else list(CHECKS)
    if unknown := [name for name in names if name not in CHECKS]:
        sys.exit(f"no such check: {', '.join(unknown)}; there are: {', '.join(CHECKS)}")
    if not boxes.Box(like, options.out).gpus:
        print("nvidia-smi lists no GPU that is visible; these checks are of GPUs (--devices=cpu shows that they work)",
              file=sys.stderr)
        sys.exit(69)
    options.out.mkdir(parents=True, exist_ok=True)
    for name in ("report.json", "report.md"):
        (options.out / name).unlink(missing_ok=True)  # of an earlier time
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    try:
        rows = run_all(names, like, options.out)
    except KeyboardInterrupt:
        print(f"stopped; {options.out} has what was found until then", file=sys.stderr)
        os._exit(130)
    failed = [row["name"] for row in rows if row["result"] == "failed"]
    counts = ", ".join(f"{sum(row['result'] == result for row in rows)} {result}" for result in _MARKS)
    print(f"{counts} in {time.monotonic() - began:.0f} s; {options.out / 'report.md'} has the figures"
          + (f"; FAILED: {', '.join(failed)}" if failed else ""))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
