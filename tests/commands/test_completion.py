"""Versions, and completion in a real shell: keys are typed on a terminal, and what stands there then is read."""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time

import pytest
from conftest import ROOT, environment, run_module

from trainer.commands import completion
from trainer.process.libraries import versions

SHELLS = {"bash": (["bash", "--norc", "--noprofile", "-i"], "bind 'set enable-bracketed-paste off'\n"),
          "zsh": (["zsh", "-f", "-i"], "autoload -U compinit; compinit -D -u; unsetopt zle_bracketed_paste\n")}


class Shell:
    """A shell on a terminal."""

    def __init__(self, name, folder):
        command, first = SHELLS[name]
        (folder / "completion").write_text(completion.script(name))
        (folder / "my pictures").mkdir()
        self.terminal, theirs = pty.openpty()
        self.process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder,
                                        env=environment(PS1="$ ", TERM="dumb"), start_new_session=True)
        os.close(theirs)
        self.read()
        self.type(first)
        self.type("lockstep() { printf '<%s>' \"$@\"; echo; }; source ./completion; echo rea''dy\n", "ready")

    def read(self, until=None, seconds=0.5):
        text, deadline = "", time.monotonic() + (20 if until else seconds)
        while time.monotonic() < deadline and not (until and until in text):
            if select.select([self.terminal], [], [], 0.1)[0]:
                text += os.read(self.terminal, 4096).decode(errors="replace")
        assert not until or until in text, text
        return text

    def type(self, keys, until=None):
        os.write(self.terminal, keys.encode())
        return self.read(until)

    def completed(self, line):
        """What the shell gives a program of a line that Tab was pressed at the end of."""
        return re.findall("<(.*?)>", self.type(f"{line}\t\n", ">\r\n"))


@pytest.mark.slow
@pytest.mark.parametrize("name", SHELLS)
def test_keys_complete_commands_flags_and_values(tmp_path, name):
    if not shutil.which(name):
        pytest.skip(f"needs {name}")
    shell = Shell(name, tmp_path)
    assert shell.completed("lockstep eval") == ["evaluate"]
    assert shell.completed("lockstep train --warmup_e") == ["train", "--warmup_epochs="]
    assert shell.completed("lockstep train --led") == ["train", "--ledger"]
    assert shell.completed("lockstep train --model=speed_none") == ["train", "--model=speed_none"]
    assert shell.completed("lockstep train --optimizer=lam") == ["train", "--optimizer=lamb"]
    assert shell.completed("lockstep train --seed=1 --augment=flip,cuto") == ["train", "--seed=1",
                                                                              "--augment=flip,cutout"]
    assert shell.completed("lockstep predict --model_dir=my")[1].rstrip("/") == "--model_dir=my pictures"
    assert shell.completed("lockstep predict my")[1].rstrip("/") == "my pictures"
    assert shell.completed("lockstep completion z") == ["completion", "zsh"]


def test_every_command_and_flag_is_there():
    text = completion.script("bash")
    lines = [line.split() for line in (ROOT / "tests/fixtures/flags.txt").read_text().splitlines()]
    for command, flag, *_ in lines:
        arm = re.search(rf'^ +{command}\) echo "(.*)"', text, re.M)[1].split()
        assert flag in arm or f"{flag}=" in arm or flag in ("--files", "--runs", "--shell"), (command, flag)


@pytest.mark.slow
def test_versions_come_without_tensorflow(tmp_path):
    ended = run_module(tmp_path, "trainer", "--version", fresh=True)
    assert ended.code == 0 and ended.out == versions.sentence() + "\n" and not ended.err
    code = "import sys\nfrom trainer import __main__\n__main__.main(['--version'])\nassert 'keras' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env=environment())


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("fish",), ("bash", "zsh")])
def test_other_shells_are_refused(tmp_path, words):
    ended = run_module(tmp_path, "trainer", "completion", *words)
    assert ended.code == 64 and "bash or zsh" in ended.err
