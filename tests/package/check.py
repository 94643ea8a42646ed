"""Builds sdist and wheel, and tries the wheel as a stranger would: `make package`.

A clean environment with the versions of constraints.txt, by hash; a user who isn't root, whose home can't be written;
another folder, with a trainer.py in it. Prints what it does, and ends with 1 at the first thing that doesn't work.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
NOBODY = 65534
BUILD = "build>=1.2"
TRIES = (("--version",), ("doctor", "--num_gpus=0"), ("completion", "bash"),
         ("train", "--config=quickstart", "--max_steps=2", "--model_dir=run", "--num_gpus=0"),
         ("evaluate", "--model_dir=run"), ("verify", "--model_dir=run"))
LIBRARY = ("from trainer import Config, train; "
           "result = train(Config(dataset='shapes', max_steps=1, model_dir='library', export=('none',))); "
           "assert result['step'] == 1")


def call(*command, quiet=False, **options):
    """Runs a command; ends this program if it fails."""
    print("$", *command[:6], "…" if len(command) > 6 else "", flush=True)
    ended = subprocess.run(list(map(str, command)), text=True, capture_output=True, **options)
    lines = (ended.stdout + ended.stderr).strip().splitlines()
    if ended.returncode:
        sys.exit("\n".join([*lines[-40:], f"failed with {ended.returncode}"]))
    if not quiet:
        print("\n".join(lines[-6:]), flush=True)
    return ended.stdout


def build(folder):
    """The sdist, and the wheel that is built from it."""
    call(sys.executable, "-m", "venv", folder / "builder")
    call(folder / "builder/bin/python", "-m", "pip", "install", "--quiet", BUILD, quiet=True)
    call(folder / "builder/bin/python", "-m", "build", "--outdir", folder / "dist", ROOT, quiet=True)
    (wheel,), (sdist,) = (folder / "dist").glob("*.whl"), (folder / "dist").glob("*.tar.gz")
    print(sdist.name, wheel.name)
    return wheel


def install(folder, wheel, python):
    """A clean environment with the wheel; returns its lockstep and its Python."""
    call(python, "-m", "venv", "--without-pip", folder / "clean")
    pip = (folder / "builder/bin/python", "-m", "pip", "--python", folder / "clean/bin/python")
    call(*pip, "install", "--quiet", "--require-hashes", "-r", ROOT / "constraints.txt", quiet=True)
    call(*pip, "install", "--quiet", "--no-deps", wheel, quiet=True)
    call(*pip, "check")
    return folder / "clean/bin/lockstep", folder / "clean/bin/python"


def try_out(folder, program, python):
    """Calls what a stranger calls."""
    home, work, scratch = folder / "home", folder / "work", folder / "scratch"
    for path in (home, work, scratch):
        path.mkdir()
    (work / "trainer.py").write_text("raise SystemExit('the trainer.py of the folder was imported')\n")
    home.chmod(0o555)
    user = {}
    if os.getuid() == 0:
        for path in (work, scratch):
            os.chown(path, NOBODY, NOBODY)
        user = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "CUDA_VISIBLE_DEVICES")}
    options = {"cwd": work, "env": {**kept, "HOME": str(home), "TMPDIR": str(scratch)}, **user}
    if subprocess.run([python, "-c", ""], check=False, **options).returncode:
        sys.exit(f"{python} can't be started by a user who isn't root: name a Python outside of root's home "
                 "(make package PYTHON=/usr/bin/python3)")
    for words in TRIES:
        call(program, *words, **options)
    call(python, "-I", "-c", LIBRARY, **options)


def main():
    """Does all of it in a folder that is removed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default=sys.executable, help="the Python to install into")
    python = shutil.which(parser.parse_args().python)
    with tempfile.TemporaryDirectory(prefix="lockstep-package-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        try_out(folder, *install(folder, build(folder), python))
    print("the package works with", call(python, "--version").strip())


if __name__ == "__main__":
    main()
