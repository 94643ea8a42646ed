"""What is printed goes through trainer/process/exit.py, where names of files and classes become text."""

import ast
import io
import sys

import pytest
from conftest import ROOT

from launch import kubernetes, slurm
from trainer.commands import bench
from trainer.process.exit import in_a_line, printable, run_to_exit_code, say

# Who writes past it: the door itself; help, which holds no one else's words; processes whose stdout a program reads;
# and storage, which imports nothing of the process's.
_OTHERS = {"trainer/process/exit.py", "trainer/flags.py", "trainer/export/measure_script.py", "launch/workers/agent.py",
           "trainer/storage/folder_lock.py"}


def prints(path):
    """Lines of a file that call print, or write to a standard stream as texts."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called == "print" or called in ("sys.stdout.write", "sys.stderr.write", "pprint"):
                yield node.lineno


def test_nobody_prints_past_the_door():
    found = {str(path.relative_to(ROOT)) for package in ("trainer", "launch") for path in (ROOT / package).rglob("*.py")
             if list(prints(path))}
    assert found == _OTHERS


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_name_is_shown_on_any_terminal(monkeypatch, encoding):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)  # strict, as Python's own are
    monkeypatch.setattr(sys, "stdout", stream)
    name = "[bold]é:cat:\x1b[31m\u202e\udcff名\x9b.png"
    assert run_to_exit_code(say, name) == 0
    shown = stream.buffer.getvalue().decode(encoding)
    assert shown.startswith("[bold]") and ":cat:\\x1b[31m\\u202e\\udcff" in shown and shown.endswith("\\x9b.png\n")
    assert shown.rstrip("\n").isprintable()
    assert printable("a\tb\nc") == "a\tb\nc" and in_a_line("a\tb\nc\r") == r"a\tb\nc\r"


@pytest.mark.parametrize("command, words", [
    (slurm, ("--nodes=1", "--", "--dataset=shapes", "--data_dir=/données/\udcff")),
    (kubernetes, ("--name=n", "--image=i", "--claim=c", "--num_workers=1", "--", "--dataset=shapes",
                  "--data_dir=/données", "--model_dir=/data/run"))])
def test_what_programs_read_is_exact_whatever_the_terminal(monkeypatch, command, words):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    assert command.main(words) == 0
    assert "/données".encode() in stream.buffer.getvalue()
    assert command is not slurm or b"\xff" in stream.buffer.getvalue()


def test_the_tables_of_bench_are_text(monkeypatch):
    row = {"replicas": 1, "devices": "1 CPU", "model": "my:model", "batch_size": 8, "dataset": "[red]é:cat:\x1b",
           "verdict": "bound by [compute]", "real_step_ms": [1.0], "synthetic_step_ms": [1.0],
           "input_alone_step_ms": [1.0],
           "real_images_per_second": 8e3, "synthetic_images_per_second": 8e3}
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    assert run_to_exit_code(bench._show, [row], bench.Options()) == 0
    stream.flush()
    shown = stream.buffer.getvalue().decode("ascii")
    assert r"[red]\xe9:cat:\x1b" in shown and "bound by [compute]" in shown


def test_a_runs_sentences_are_no_markup_and_no_emoji_codes(capsys):
    from trainer.reporting.console import Console

    console = Console()
    console.say("class [bold]x:cat:[/bold]")
    console.close()
    assert capsys.readouterr().out == "class [bold]x:cat:[/bold]\n"
