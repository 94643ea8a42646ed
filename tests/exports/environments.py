"""Loads every export in an environment of its own that has its runtime and not this project: `make test-exports`.

Trains a small run, exports it in all formats, and makes an environment for each of `load.ENVIRONMENTS` below a folder
that is removed: plain Keras (on JAX, without TensorFlow), plain TensorFlow, ai-edge-litert, onnxruntime, openvino.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from load import ENVIRONMENTS
from PIL import Image

ROOT = Path(__file__).parents[2]
LOADER = Path(__file__).with_name("load.py")
FORMATS = "h5,keras,saved_model,litert,litert_float16,litert_int8,onnx,openvino"
IMAGES = 50


def call(*command, **options):
    """Runs a command; ends this program with its last lines if it fails."""
    ended = subprocess.run(list(map(str, command)), text=True, capture_output=True, **options)
    if ended.returncode:
        sys.exit("\n".join([*(ended.stdout + ended.stderr).strip().splitlines()[-30:],
                            f"{command[0]} ended with {ended.returncode}"]))
    return ended.stdout


def train(folder):
    """A trained run, and the files that `load.py` reads."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests/support")]
    path = os.pathsep.join(sys.path[:2])
    call(sys.executable, "-m", "trainer.main", "--dataset=small_data:few", "--model=small_models:smooth",
         "--max_steps=100", "--learning_rate=0.003", "--num_gpus=0", f"--export={FORMATS}", "--model_dir=run",
         cwd=folder, env={**os.environ, "PYTHONPATH": path})
    import small_data

    _, _, (images, _) = small_data.few(None)
    said = np.load(folder / "run/predictions.npz")
    order = np.argsort(said["ids"])[:IMAGES]
    assert (said["ids"][order] == np.arange(IMAGES)).all()
    (folder / "given").mkdir()
    shutil.copytree(folder / "run/export", folder / "given/export")
    np.save(folder / "given/images.npy", images[:IMAGES])
    np.save(folder / "given/probabilities.npy", said["probabilities"][order])
    Image.fromarray(images[0]).save(folder / "given/image.png")


def load(folder, name):
    """Makes an environment, and loads its exports there."""
    began, environment = time.monotonic(), folder / name
    call(sys.executable, "-m", "venv", environment)
    pip = (environment / "bin/python", "-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check")
    call(*pip, *ENVIRONMENTS[name][0])
    kept = {key: value for key, value in os.environ.items() if key in ("PATH", "LANG", "TMPDIR")}
    variables = {"HOME": str(folder), "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1",
                 **({"KERAS_BACKEND": "jax"} if name == "keras" else {})}
    said = call(environment / "bin/python", shutil.copy(LOADER, folder / "given/load.py"), name, folder / "given",
                cwd=folder / "given", env={**kept, **variables})
    print(f"{said.strip()}\n  ({time.monotonic() - began:.0f} s)", flush=True)
    shutil.rmtree(environment)


def main():
    """Does all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=list(ENVIRONMENTS), help="one of the environments")
    only = parser.parse_args().only
    with tempfile.TemporaryDirectory(prefix="lockstep-exports-") as name:
        folder = Path(name)
        train(folder)
        for environment in [only] if only else ENVIRONMENTS:
            load(folder, environment)
    print("every export answers as the model does, without this project")


if __name__ == "__main__":
    main()
