"""Checks of whole commands: real processes, real signals."""

import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time

from box import ROOT
from runs import assert_equal_runs, wait_for_step

_FLAGS = ("--batch_size=64", "--optimizer=sgd", "--learning_rate=0.01", "--log_every_steps=5",
          "--checkpoint_every_steps=20", "--export=none", "--ledger",
          "--model_dir=run")


def _trainer(box, *more):
    return ["trainer.main", *_FLAGS, *box.flags(), *box.pick(
        ["--dataset=shapes", "--model=cnn3", "--augment=flip,crop", "--eval_every_epochs=0.1"],
        ["--dataset=small_data:few", "--model=small_models:smooth", "--eval_every_epochs=0.4",
         "--batch_size=16", "--epochs=1e6"]), *more]


def machine(box):
    """`doctor`: driver, compiler and cuDNN; a convolution in each precision with XLA; an all-reduce."""
    out, _ = box.run("doctor", "trainer", "doctor", *box.flags(box.pick(min(box.gpus, 8), 2)))
    assert "with XLA in float32, bfloat16, float16: right" in out
    assert box.like or ("compute capability" in out and "cuDNN" in out)
    used = re.search(r"training would use: (.*)", out)[1]
    return used, {"doctor": out.splitlines()}


def start_and_exports(box):
    """Seconds from the command to the first step, with an empty cache of kernels and with a full one; exports."""
    seconds = {}
    exports = box.pick("h5,keras,saved_model", "h5")
    for name, more in (("cold", ["--max_steps=20", f"--export={exports}"]), ("warm", ["--max_steps=40"])):
        began = time.time()
        box.run("run", *_trainer(box, "--log_every_steps=1", *more), CUDA_CACHE_PATH=str(box.folder / "kernels"))
        first = next(line for line in box.lines("run") if line["time"] > began)
        seconds[name] = round(first["time"] - began, 1)
        if name == "cold":
            result = box.result("run")
            for export in result["exports"].values():
                assert abs(export["accuracy"] - result["eval_accuracy"]) < 0.005, result
    assert seconds["cold"] < 300 and seconds["warm"] < 120, seconds
    return (f"first step after {seconds['cold']} s, then after {seconds['warm']} s; exports have the run's accuracy",
            seconds)


def kills(box):
    """A run that is killed, asked to stop, and goes on, beside one that was not; with --deterministic equal bits."""
    steps, speeds, reached = box.pick(300, 60), {}, 0
    flags = ["--deterministic", f"--max_steps={steps}"]
    box.run("through", *_trainer(box, *flags))
    for number, code in ((signal.SIGKILL, -9), (signal.SIGTERM, 75)):
        process = box.start("killed", *_trainer(box, *flags))
        wait_for_step(process, box.folder / "killed", reached + 10)
        process.send_signal(number)
        _, err = process.communicate()
        # 0: it was through before the signal
        assert process.returncode in (code, 0), f"signal {number}: ended with {process.returncode}\n{err}"
        reached = box.lines("killed")[-1]["step"]
    box.run("killed", *_trainer(box, *flags))
    assert_equal_runs(box.folder / "killed", box.folder / "through")
    if not box.like:
        for name, more in (("deterministic", ["--deterministic"]), ("default", [])):
            box.run(name, *_trainer(box, "--max_steps=2000", "--eval_every_epochs=100", *more))
            speeds[name] = box.result(name)["images_per_second"]
        price = 1 - speeds["deterministic"] / speeds["default"]
        return f"equal to the last bit; --deterministic costs {price:.0%}", {**speeds, "price": price}
    return "equal to the last bit", {}


def memory(box):
    """A batch that doesn't fit: exit code 64 with a sentence, and the next run finds the memory free."""
    box.not_on_cpus("a CPU's memory has no end that TensorFlow raises at")
    _, err = box.run("large", *_trainer(box, "--model=resnet50", "--batch_size=12000", "--input=host",
                                        "--precision=float32", "--max_steps=2"), code=64)
    assert "out of memory" in err and "--batch_size" in err, err
    box.run("next", *_trainer(box, "--max_steps=5"))
    return "64 with its fix, and nothing of it stays", {}


def lost_worker(box):
    """Two workers of a device each: one is killed, the other ends with 70 in time."""
    box.need(2)
    flags = [flag for flag in _trainer(box, "--max_steps=100000", "--eval_every_epochs=1000")[1:]
             if "virtual" not in flag]
    launcher = box.start("job", "launch.local", "--num_workers=2", "--max_restarts=0", "--", *flags)
    wait_for_step(launcher, box.folder / "job", 10)
    listed = subprocess.run(["pgrep", "-f", "trainer.main.*--max_steps=100000"], capture_output=True, text=True).stdout
    workers = [int(line) for line in listed.split() if os.readlink(f"/proc/{line}/cwd") == str(box.folder / "job")]
    os.kill(workers[-1], signal.SIGKILL)
    began = time.monotonic()
    _, err = launcher.communicate()
    seconds = time.monotonic() - began
    assert launcher.returncode == 70 and seconds < 60, f"ended with {launcher.returncode} after {seconds:.0f} s\n{err}"
    return f"the other ended with 70 after {seconds:.1f} s", {"seconds": round(seconds, 1)}


def speed(box):
    """Images/s for each number of devices, beside Keras's `fit`; the share of the card's peak, and its power."""
    figures, words = {}, []
    cases = box.pick([("cnn3", "auto", 128), ("resnet20", "bfloat16", 128), ("resnet50", "bfloat16", 256)],
                     [("small_models:smooth", "float32", 16)])
    counts = ",".join(str(2**power) for power in range(8) if 2**power <= box.pick(box.gpus, 1))
    for model, precision, batch in cases:
        power = _Power(box)
        out, _ = box.run("bench", "trainer", "bench", *box.pick(["--dataset=shapes"], ["--dataset=small_data:few"]),
                         f"--model={model}", f"--batch_size={batch}",
                         f"--precision={precision}", f"--replicas={counts}", f"--seconds={box.pick(2, 0.05)}",
                         f"--repeats={box.pick(5, 1)}", "--json", *(["--num_gpus=0"] if box.like else []))
        rows = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
        rates = {row["replicas"]: row["real_images_per_second"] for row in rows}
        figures[model] = {"images_per_second": rates, "step_ms": statistics.median(rows[0]["real_step_ms"]),
                          "watts": power.mean(), "mfu": _share_of_peak(box, model, rates[1]),
                          "verdict": rows[0]["verdict"]}
        scaling = "".join(f", {count} devices {rate / rates[1]:.2f} ×" for count, rate in rates.items() if count > 1)
        mfu = figures[model]["mfu"]
        words.append(f"{model} {rates[1]:,.0f} images/s{scaling}{'' if mfu is None else f', {mfu:.1%} of the peak'}")
    fit = subprocess.run([sys.executable, "-c", _FIT, box.pick("cnn3", "small_models:smooth"), box.pick("128", "16"),
                          box.pick("12000", "320")], cwd=ROOT, env=box.variables, capture_output=True, text=True)
    assert fit.returncode == 0, fit.stderr
    figures["fit"] = json.loads(fit.stdout.splitlines()[-1])
    words.append(f"Keras's fit of the first {figures['fit']:,.0f}")
    ours = figures[cases[0][0]]["images_per_second"][1]
    assert ours > box.pick(30_000, 100), "a run on the CPU, or one that waits for the host all the time"
    return "; ".join(words), figures


_FIT = """
import sys, time
name, batch, examples = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
from trainer.process.tf_import import tf
import keras
from trainer import models
from trainer.data.sources import shapes
data = shapes.render_dataset(0, examples, 50)
model = models.build(name, 10, data.image_shape)
model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
rates = []
for _ in range(4):
    began = time.perf_counter()
    model.fit(data.train.images, data.train.labels, batch_size=batch, verbose=0)
    rates.append(examples / (time.perf_counter() - began))
print(max(rates[1:]))
"""


def _share_of_peak(box, model, rate):
    """6 × forward multiply-adds × images/s, by the card's dense peak in bfloat16; None where that isn't known."""
    from trainer.distributed.devices import machine as driver
    from trainer.distributed.devices.peaks import peak_flops

    if box.like:
        return None
    name = driver.gpus(os.environ.get("CUDA_VISIBLE_DEVICES"))[0].name
    peak = peak_flops(name, "bfloat16")
    code = ("import sys; from trainer import models; from trainer.models.multiply_adds import multiply_adds; "
            "print(multiply_adds(models.build(sys.argv[1], 10, (32, 32, 3))))")
    done = subprocess.run([sys.executable, "-c", code, model], capture_output=True, text=True, check=True, cwd=ROOT,
                          env={**box.variables, "CUDA_VISIBLE_DEVICES": "-1",
                               "PYTHONPATH": f"{box.variables['PYTHONPATH']}:{ROOT / 'tests/gpu'}"})
    return None if peak is None else 6 * int(done.stdout) * rate / peak


class _Power:
    """Reads a GPU's power every half second until `mean` is called."""

    def __init__(self, box):
        self._process = None if box.like else subprocess.Popen(
            ["nvidia-smi", "--query-gpu=power.draw", "--format=csv,noheader,nounits", "--id=0", "--loop-ms=500"],
            stdout=subprocess.PIPE, text=True)

    def mean(self):
        """The mean of the upper half of the readings, in watts: while the GPU worked. None without a GPU."""
        if not self._process:
            return None
        self._process.terminate()
        readings = sorted(float(line) for line in self._process.communicate()[0].split() if line[:1].isdigit())
        return round(statistics.mean(readings[len(readings) // 2:]), 1) if readings else None
