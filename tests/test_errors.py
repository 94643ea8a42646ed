"""How the process ends: with the code, the words, and nothing of the interpreter's own end."""

import subprocess
import sys

import pytest
from conftest import environment

from trainer.process.exit import printable, tell
from trainer.reporting.console import Console

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


@pytest.mark.parametrize("text, shown", [
    ("plain – 3 × 4 …\nnext", "plain – 3 × 4 …\nnext"), ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
    ("a\rb", "a\\rb"), ("abc\u202etxt.exe", "abc\\u202etxt.exe"), ("half \udc80", "half \\udc80")])
def test_what_others_wrote_does_nothing_to_a_terminal(text, shown, capsys):
    assert printable(text) == shown
    tell(text)
    Console().say(text)
    out, err = capsys.readouterr()
    assert out == err == shown + "\n"


@pytest.mark.slow
def test_what_a_pipe_cannot_show_ends_no_run():
    done = subprocess.run([sys.executable, "-m", "trainer", "doctor", "--data", "--dataset=small_data:few"], text=True,
                          capture_output=True, env=environment(PYTHONIOENCODING="ascii", LC_ALL="C"))
    assert done.returncode == 0 and "32 \\xd7 32 \\xd7 3" in done.stdout, done.stderr
