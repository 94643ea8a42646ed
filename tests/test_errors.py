"""How the process ends: with the code, the words, and nothing of the interpreter's own end."""

import subprocess
import sys

import pytest
from conftest import environment

PROGRAM = """
import atexit, sys
from trainer.process.exit import run_as_process
atexit.register(lambda: print("the interpreter's own end"))
def program():
    print("out")
    print("err", file=sys.stderr)
    {body}
run_as_process(program)
"""


@pytest.mark.slow
@pytest.mark.parametrize("body, code, err", [
    ("return 0", 0, "err\n"), ("return 75", 75, "err\n"), ("sys.exit(69)", 69, "err\n"), ("sys.exit()", 0, "err\n"),
    ("1 / 0", 1, "ZeroDivisionError"), ("sys.stdout = None; return 141", 141, "err\n")])
def test_the_process_ends_with_its_code_and_all_its_words(body, code, err):
    done = subprocess.run([sys.executable, "-c", PROGRAM.format(body=body)], capture_output=True, text=True,
                          env=environment(PYTHONUNBUFFERED="" if "None" not in body else "1"), timeout=60)
    assert (done.returncode, done.stdout) == (code, "out\n") and err in done.stderr
