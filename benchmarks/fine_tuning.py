"""With 20 images a class, weights of other classes are worth 5.6 points (a last layer) or 3.3 (all layers) of accuracy.

    python benchmarks/fine_tuning.py --data_dir=.test-data [--epochs=8] [--repeats=3] [--images=20]

A network learns five classes of CIFAR-10 from all their images (airplane, automobile, bird, cat, deer); then three ways
to learn the other five from a few images a class, each with the same number of steps, and measured on all 5,000 test
images of these classes:

    scratch     from random weights
    probe       the network's weights stay, a new last layer trains:    --init_from=RUN --freeze='.*'
    fine-tuned  from the network's weights, all of them train:          --init_from=RUN

Each repeat draws other images and other first weights. Learning rates are fixed beforehand: 0.001, 0.01 for the last
layer alone, and 0.0003 where all weights begin with the network's. Everything runs as users run it: folders of PNG
files, `python -m trainer.main`.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

KNOWN, NEW = ("airplane", "automobile", "bird", "cat", "deer"), ("dog", "frog", "horse", "ship", "truck")
WAYS = {"scratch": ("--learning_rate=0.001",),
        "probe": ("--init_from={known}", "--freeze=.*", "--learning_rate=0.01"),
        "fine-tuned": ("--init_from={known}", "--learning_rate=0.0003")}


def write_images(folder, split, classes, most, seed):
    """Writes images of some classes as PNG files, a folder for each class.

    Args:
        folder: Where the folders of the classes go.
        split: `Split` of the images.
        classes: (number, name) of each class.
        most: How many of each class, drawn by `seed`; None for all.
    """
    dice = np.random.default_rng(seed)
    for number, name in classes:
        rows = np.flatnonzero(split.labels == number)
        rows = rows if most is None else np.sort(dice.choice(rows, most, replace=False))
        (folder / name).mkdir(parents=True)
        for row in rows.tolist():
            Image.fromarray(split.images[row]).save(folder / name / f"{row}.png", compress_level=1)


def train(data, model_dir, *flags):
    """Trains, as a user does; returns the accuracy on the test split."""
    subprocess.run([sys.executable, "-m", "trainer.main", "--dataset=folder", f"--data_dir={data}", "--model=cnn3",
                    f"--model_dir={model_dir}", "--schedule=cosine", "--augment=flip,crop", "--export=none",
                    "--validation_fraction=0", "--num_gpus=0", *flags], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return json.loads((Path(model_dir) / "result.json").read_text())["eval_accuracy"]


def main():
    """Runs it all, and prints the table of benchmarks/RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--epochs", type=float, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    from trainer.config import Config
    from trainer.data.dataset import load

    data = load(Config(dataset="cifar10", data_dir=options.data_dir, validation_fraction=0.0))
    named = {name: (data.classes.index(name), name) for name in data.classes}
    found = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, classes in (("known", KNOWN), ("new", NEW)):
            write_images(root / name / "test", data.test, [named[each] for each in classes], None, 0)
        write_images(root / "known/train", data.train, [named[each] for each in KNOWN], None, 0)
        known = train(root / "known", root / "network", f"--epochs={options.epochs}", "--batch_size=128")
        print(f"five classes from all their images, {options.epochs:g} epochs: {known:.2%}", flush=True)
        for repeat in range(options.repeats):
            few = root / f"few{repeat}"
            write_images(few / "train", data.train, [named[each] for each in NEW], options.images, repeat)
            (few / "test").symlink_to(root / "new/test")
            for way, flags in WAYS.items():
                found[way].append(train(
                    few, root / f"{way}{repeat}", f"--max_steps={options.steps}", "--epochs=1e6", "--batch_size=20",
                    f"--seed={repeat}", "--eval_every_epochs=1000",
                    *(flag.format(known=root / "network") for flag in flags)))
                print(f"{way}, {repeat}: {found[way][-1]:.2%}", flush=True)
    print(f"\n| {options.images} images a class | mean | lowest | highest | n |\n|---|---|---|---|---|")
    for way, values in found.items():
        print(f"| {way} | {statistics.mean(values):.2%} | {min(values):.2%} | {max(values):.2%} | {len(values)} |")


if __name__ == "__main__":
    main()
