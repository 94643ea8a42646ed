"""`train` in scripts: the same run as the command's, to the last bit, in a process that is left as it was found."""

import json
import signal
import subprocess
import sys
import typing

import forks
import pytest
import runs
from conftest import ROOT, environment
from runs import assert_equal_runs, finish, wait_for_step
from test_train import FLAGS

from trainer import Result

# The settings of FLAGS, as Python has them.
HEAD = """
import faulthandler, os, random, signal, sys, threading, time
from trainer import Config, Stopped, UsageError, train

def config(**more):
    return Config(**{**dict(dataset="small_data:few", model="small_models:normalized", batch_size=16, max_steps=40,
                            optimizer="sgd", learning_rate=0.05, augment=("flip", "crop"), eval_every_epochs=0.2,
                            log_every_steps=4, checkpoint_every_steps=9, num_gpus=0, virtual_devices=2,
                            export=("none",), ledger=True, model_dir="run"), **more})

def found():
    deadline = time.monotonic() + 5
    while threading.active_count() > 1 and time.monotonic() < deadline:
        time.sleep(0.1)
    return dict(os.environ), os.getcwd(), list(sys.path), [signal.getsignal(n) for n in signal.valid_signals()], \\
        threading.enumerate(), faulthandler.is_enabled(), sys.excepthook, threading.excepthook, random.getstate()
"""

TWO_RUNS = HEAD + """
before = found()
result = train(config())
after = found()
assert before == after, [pair for pair in zip(before, after) if pair[0] != pair[1]]
print("done", sorted(result), flush=True)

# A second run, in a thread; the main thread works, and stops it when it has come half way.
stop, ends = threading.Event(), []
def second():
    try:
        train(config(model_dir="second/run"), stop=stop)
    except Stopped as end:
        ends.append(str(end))
thread = threading.Thread(target=second)
thread.start()
numbers = 0
while thread.is_alive():
    numbers += sum(range(1000))
    path = "second/run/metrics.jsonl"
    if os.path.exists(path) and '"step": 16' in open(path).read():
        stop.set()
    if not ends and not numbers % 7:
        try:
            train(config(model_dir="third"))
        except UsageError as end:
            refused = str(end)
assert "is saved in second/run/checkpoints" in ends[0] and "its event is set" in ends[0], ends
assert "under way already" in refused and not os.path.exists("third")
train(config(model_dir="second/run"))

for more in (dict(virtual_devices=0), dict(batch_size="16", augment="flip"), dict(model="__main__:model")):
    try:
        train(config(model_dir="fourth", **more))
    except UsageError as end:
        print(end)
assert found()[:-1] == before[:-1]
"""

INTERRUPTED = HEAD + """
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background process of a shell's ignores it
try:
    train(config())
except Stopped as end:
    print("stopped", end, flush=True)
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
print("alive")
"""


def start(folder, script, fresh=False):
    (folder / "script.py").write_text(script)
    return forks.start("script", fresh=fresh, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    folder = tmp_path_factory.mktemp("command")
    finish(runs.start(folder, *FLAGS), 0)
    return folder


@pytest.mark.long
def test_two_runs_in_a_process_are_the_commands_and_leave_nothing(command, tmp_path):
    out, _ = finish(start(tmp_path, TWO_RUNS, fresh=True), 0)
    for folder in (tmp_path, tmp_path / "second"):
        assert_equal_runs(folder, command)
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result.keys() == typing.get_type_hints(Result).keys()
    assert str(sorted(result)) in out
    assert "2 logical devices on the CPU; received --num_gpus=0 --virtual_devices=0" in out
    assert "--batch_size must be a whole number or None; received '16'\n  --augment must be a tuple" in out
    assert "--model=__main__:model names the script or the notebook itself" in out
    assert not (tmp_path / "fourth/checkpoints").exists()


def test_command_and_call_go_on_with_each_others_run(command, tmp_path):
    process = runs.start(tmp_path, *FLAGS)
    wait_for_step(process, tmp_path, 20)
    process.kill()
    process.communicate()
    process = start(tmp_path, INTERRUPTED)
    wait_for_step(process, tmp_path, 28)
    process.send_signal(signal.SIGINT)
    out, err = finish(process, 0)
    assert "resuming from step" in out and "Ctrl-C: saving, then stopping" in err, out + err
    assert "stopped asked to stop (Ctrl-C); step" in out and out.endswith("alive\n")
    finish(runs.start(tmp_path, *FLAGS), 0)
    assert_equal_runs(tmp_path, command)


def test_names_come_light_and_wrong_ones_are_python_s_own_error():
    code = ("import sys, trainer\nfrom trainer import *\n"
            "assert train is trainer.train and callable(train) and Config.__name__ == 'Config'\n"
            "assert issubclass(Stopped, LockstepError) and 'train' in dir(trainer)\n"
            "assert not {'tensorflow', 'keras'} & set(sys.modules)\n"
            "import inspect; assert list(inspect.signature(train).parameters) == ['config', 'stop']\n"
            "import pickle; assert pickle.loads(pickle.dumps(train)) is train\n"
            "try: trainer.nothing\nexcept AttributeError as error: assert 'nothing' in str(error)\n")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env=environment())
