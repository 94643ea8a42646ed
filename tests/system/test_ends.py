"""Every stop has a code, a cause and a fix, and never a traceback."""

import json
import re
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import Ended, environment

from trainer.data.order import Shuffle
from trainer.reporting import jsonl

SMALL = ("--dataset=small_data:few", "--model=small_models:normalized")


def ended(done, code, *parts):
    assert done.code == code, done.out + done.err
    for part in (*parts, "fix: "):
        assert part in done.err
    assert "Traceback" not in done.out + done.err


def test_wrong_flags_are_answered_at_once_and_all_together(run):
    began = time.monotonic()
    done = run("trainer.main", "--batch_size=x", "--modle=cnn3", "--epochs=0", PYTHONPROFILEIMPORTTIME="1")
    assert time.monotonic() - began < 2
    ended(done, 64, "--batch_size must be a whole number", "did you mean --model?", "--epochs must be above 0")
    assert "tensorflow" not in done.err  # where every import is listed


def test_the_code_is_the_same_if_nobody_reads_the_cause(tmp_path):
    process = subprocess.Popen([sys.executable, "-m", "trainer.main", "--epochs=0"], cwd=tmp_path, env=environment(),
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    process.stderr.close()
    assert process.wait(20) == 64


def test_more_gpus_than_there_are(run):
    done = run("trainer.main", "--num_gpus=4", "--dataset=shapes")
    ended(done, 69, "--num_gpus=4 asks for 4 GPUs; visible to TensorFlow: none")


def test_a_missing_file(run, tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    np.zeros((10, 3073), np.uint8).tofile(folder / "data_batch_1.bin")
    ended(run("trainer.main", f"--data_dir={tmp_path}"), 65, "data_batch_2.bin")


def test_a_truncated_file(run, tmp_path):
    for number in range(1, 6):
        np.zeros(3073 * 2 - (number == 3), np.uint8).tofile(tmp_path / f"data_batch_{number}.bin")
    ended(run("trainer.main", f"--data_dir={tmp_path}"), 65, "data_batch_3.bin is damaged", "record 1 is cut off")


def test_no_data_and_no_network(run, tmp_path):
    # A proxy on a port where nobody listens: no download, wherever this test runs.
    done = run("trainer.main", f"--data_dir={tmp_path}", KERAS_HOME=str(tmp_path / "keras"),
               https_proxy="http://127.0.0.1:9", HTTPS_PROXY="http://127.0.0.1:9")
    ended(done, 65, "download failed", "--dataset=shapes")


def test_used_and_unused_folders(run, tmp_path):
    flags = (*SMALL, "--max_steps=2", "--export=none", "--model_dir=run")
    ended(run("trainer.main", *flags, "--resume=require"), 64, "--resume=require needs a checkpoint")
    assert run("trainer.main", *flags).code == 0
    ended(run("trainer.main", *flags, "--resume=never"), 64, "refuses a used model_dir")
    ended(run("trainer.main", *flags, "--batch_size=64", "--seed=2"), 64, "--batch_size: the run has 128, received 64",
          "--seed: the run has 0, received 2")


def test_a_model_dir_that_cannot_be_made(run, tmp_path):
    (tmp_path / "file").write_text("")
    for name in ("file/run", "file", "x" * 300):
        ended(run("trainer.main", "--dataset=shapes", f"--model_dir={name}"), 74, name)


def test_a_reader_that_leaves_does_not_end_the_run(tmp_path):
    command = (f"{sys.executable} -m trainer.main {' '.join(SMALL)} --max_steps=30 --export=none"
               " --model_dir=run; echo $? > code")
    subprocess.run(["bash", "-c", f"({command}) | head -1"], cwd=tmp_path, env=environment(), check=True,
                   capture_output=True, timeout=200)
    assert (tmp_path / "code").read_text() == "0\n" and (tmp_path / "run/result.json").exists()


def test_a_batch_that_does_not_divide(run):
    ended(run("trainer.main", *SMALL, "--virtual_devices=3"), 64, "126 or 129")


@pytest.mark.parametrize("model", ["nowhere:build", "math:nothing"])
def test_models_that_cannot_be_had(run, model):
    ended(run("trainer.main", *SMALL, f"--model={model}"), 64, "can't be imported")


def test_a_model_of_the_wrong_shape(run, tmp_path):
    (tmp_path / "mine.py").write_text("import keras\ndef build(classes, image_shape):\n"
                                      "    x = keras.Input(image_shape)\n"
                                      "    return keras.Model(x, keras.layers.Flatten()(x))\n")
    ended(run("trainer.main", *SMALL, "--model=mine:build"), 64, "must map (None, 32, 32, 3) to (None, 10)")


@pytest.mark.parametrize("flags, words", [
    (["--dataset=shapes", "--model=mine:build"], ["--model=mine:build failed with ZeroDivisionError: division by zero",
                                                  "mine.py, line 3)", "return 1 / 0"]),
    (["--dataset=mine:load"], ["--dataset=mine:load failed with KeyError: 'labels'", "mine.py, line 5)"]),
    (["--dataset=broken:load"], ["--dataset=broken:load failed with NameError", "broken.py, line 1)"])])
def test_an_error_in_code_of_ones_own_shows_its_lines(run, tmp_path, flags, words):
    (tmp_path / "mine.py").write_text("def build(classes, image_shape):\n    # comment\n    return 1 / 0\n"
                                      "def load(config):\n    return {}['labels']\n")
    (tmp_path / "broken.py").write_text("nothing\n")
    done = run("trainer.main", *flags)
    assert done.code == 64 and "  fix: correct the function" in done.err
    for word in words:
        assert word in done.err


def test_images_that_are_too_small_for_the_model(run, tmp_path):
    (tmp_path / "mine.py").write_text(
        "import numpy as np\ndef load(config):\n    part = np.zeros((20, 16, 16, 3), np.uint8), np.arange(20) % 2\n"
        "    return ('a', 'b'), part, part\n")
    ended(run("trainer.main", "--dataset=mine:load"), 64,
          "--model=cnn3 does not take images of 16 × 16 × 3: its smallest are 18 × 18",
          "models that take them: airbench, cnn2")


def test_a_format_that_fails_in_the_end_costs_74_and_nothing_else(run, tmp_path):
    """Keras writes operators between layers into an .h5 file, and can't load them from it."""
    done = run("trainer.main", "--dataset=small_data:few", "--model=small_models:operators", "--max_steps=2",
               "--model_dir=run")
    ended(done, 74, "the h5 export can't be loaded again (exit 1): ValueError: Unknown layer: 'TrueDivide'",
          "--export=keras,saved_model leaves out what failed")
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["exports"].keys() == {"keras", "saved_model"} and result["export_failures"].keys() == {"h5"}
    assert {path.name for path in (tmp_path / "run/export").iterdir()} == {
        "MODEL_CARD.md", "labels.txt", "manifest.json", "model.keras", "saved_model"}
    assert "accuracy" in done.out and (tmp_path / "run/report/curves.png").exists()


def test_gradients_that_stay_infinite(run):
    done = run("trainer.main", *SMALL, "--optimizer=sgd", "--learning_rate=1e30", "--momentum=0", "--max_steps=200",
               "--max_bad_steps=5", "--export=none")
    ended(done, 76, "the gradients were not finite in 5 steps in a row, up to step", "--learning_rate")
    step = int(re.search(r"up to step (\d+) ", done.err)[1])
    first = (step - 1) * 128
    ids = ", ".join(map(str, Shuffle(0, 1_280).stream(first, first + 8)[0]))
    assert f"The last one's examples: {ids} and 120 more (--ledger writes those of all steps)" in done.err
    assert f"warning: step {step - 4}: the loss was not finite; the gradients were not finite" in done.err


def test_a_test_loss_that_is_not_finite_is_null(run, tmp_path):
    done = run("trainer.main", *SMALL, "--optimizer=sgd", "--learning_rate=1e30", "--momentum=0", "--max_steps=4",
               "--export=none", "--model_dir=run")
    assert done.code == 0, done.err

    def refuse(constant):
        raise AssertionError(constant)

    result = json.loads((tmp_path / "run/result.json").read_text(), parse_constant=refuse)
    assert result["eval_loss"] is None and result["best"]["loss"] is None and result["skipped_steps"] == 3


def test_unknown_commands(run):
    ended(run("trainer", "trian"), 64, "there is no command 'trian'")
    ended(run("trainer", "evaluate", "--model_dir=nowhere"), 65, "is not a run directory")
    ended(run("trainer", "verify", "--model_dir=nowhere"), 65, "holds no checkpoint")


@pytest.mark.parametrize("words", [("evaluate", "--model_dir=nowhere"), ("verify", "--model_dir=nowhere"),
                                   ("prepare", "--data_dir=nowhere", "--out=there"),
                                   ("doctor", "--data", "--dataset=folder", "--data_dir=nowhere")])
def test_commands_say_nothing_of_tensorflows_start(run, words):
    """Whatever a command imports first, native chatter is kept back."""
    done = run("trainer", *words, fresh=True)
    assert done.code in (65, 74) and done.err.startswith("lockstep: "), done.err


def test_help(run):
    for words in (("trainer.main", "--help"), ("trainer", "--help"), ("trainer", "bench", "--help")):
        done = run(*words)
        assert done.code == 0 and "--" in done.out


def run_after(code, folder, *flags):
    """Runs the trainer in a process that does something else first."""
    code = f"import sys; {code}; from trainer.main import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", code, *flags], cwd=folder, env=environment(), text=True,
                          capture_output=True, timeout=200)
    return Ended(done.returncode, done.stdout, done.stderr)


def test_too_little_memory_names_the_batch(run):
    done = run("trainer.main", *SMALL, "--model=small_models:hungry", "--max_steps=5", "--export=none", "--num_gpus=0")
    ended(done, 64, "out of memory: OOM when allocating tensor with shape[274877906944]",
          "less with a lower --batch_size")


def test_too_little_memory_on_the_host(tmp_path):
    for number in range(1, 6):
        with open(tmp_path / f"data_batch_{number}.bin", "wb") as file:
            file.truncate(3073 * 100_000)  # 1.5 GB of zeros, none of them on the disk
    done = run_after("import resource, trainer.distributed.runtime; "
                     "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize(); "
                     "resource.setrlimit(resource.RLIMIT_AS, (used + 2**30,) * 2)", tmp_path,
                     f"--data_dir={tmp_path}", "--num_gpus=0")
    ended(done, 64, "out of memory on the host", "--batch_size")


def test_a_clock_that_jumps_changes_nothing(run, tmp_path):
    """Backwards by an hour at every look: order comes from steps and the monotonic clock."""
    flags = (*SMALL, "--max_steps=30", "--log_every_steps=5", "--checkpoint_every_steps=10", "--num_gpus=0",
             "--export=none")
    done = run_after("import time; real = time.time; jumps = iter(range(10**9)); "
                     "time.time = lambda: real() - 3600 * next(jumps)", tmp_path, *flags, "--model_dir=jumping")
    assert done.code == 0 and "Traceback" not in done.err, done.err
    assert run("trainer.main", *flags, "--model_dir=steady").code == 0
    jumping, steady = ([{name: value for name, value in line.items() if name not in ("time", "images_per_second")}
                        for line in jsonl.read(tmp_path / name / "metrics.jsonl")] for name in ("jumping", "steady"))
    assert jumping == steady and len(steady) == 9
    times = [line["time"] for line in jsonl.read(tmp_path / "jumping/metrics.jsonl")]
    assert times == sorted(times, reverse=True)  # it did jump


def test_data_that_is_not_what_it_was(run, tmp_path):
    for name in ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"):
        np.zeros((20, 3073), np.uint8).tofile(tmp_path / f"{name}.bin")
    flags = (f"--data_dir={tmp_path}", "--model=small_models:normalized", "--model_dir=run", "--batch_size=10",
             "--export=none")
    assert run("trainer.main", *flags, "--max_steps=2").code == 0
    before = {path: path.read_bytes() for path in (tmp_path / "run/checkpoints").rglob("*") if path.is_file()}
    data = bytearray((tmp_path / "data_batch_3.bin").read_bytes())
    data[5000] ^= 1
    (tmp_path / "data_batch_3.bin").write_bytes(data)
    ended(run("trainer.main", *flags, "--max_steps=4"), 65, "the data is not what it was when this run began")
    assert all(path.read_bytes() == content for path, content in before.items())
