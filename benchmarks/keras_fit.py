"""Keras's `fit` trains `cnn3`, batch 128, at 5,350 images/s on two cores of an AMD EPYC (median of 5 runs).

Measured by benchmarks/speed.py, of which this is the peer: the training as users of Keras write it, `compile` and `fit`
on arrays. With --epochs=10 and seed 0 its test accuracy is 68.27 % (n = 1).

    python benchmarks/keras_fit.py --data_dir=FOLDER [--model=cnn3] [--batch_size=128] [--replicas=1] [--epochs=2]

Prints a JSON line for benchmarks/speed.py: images_per_second of the best epoch after the first, and the test accuracy.
The last line is the row of the accuracies in benchmarks/RESULTS.md; its second column is left empty for the runs of
`trainer.main`. FOLDER holds CIFAR-10's binary files.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parent.parent))

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from trainer import models  # noqa: E402
from trainer.config import Config  # noqa: E402
from trainer.data.dataset import load  # noqa: E402


class EpochSeconds(keras.callbacks.Callback):
    """Collects how long each epoch took.

    Attributes:
        seconds: A number for each epoch.
    """

    def on_train_begin(self, logs=None):
        """Starts an empty list."""
        self.seconds = []

    def on_epoch_begin(self, epoch, logs=None):
        """Notes the time."""
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        """Adds the epoch's time to the list."""
        self.seconds.append(time.perf_counter() - self._began)


def main():
    """Trains, and prints the line for speed.py and the row of RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", required=True, help="the folder of CIFAR-10's binary files")
    parser.add_argument("--model", default="cnn3", help="as trainer.main's --model")
    parser.add_argument("--batch_size", type=int, default=128, help="images a step, over all replicas")
    parser.add_argument("--replicas", type=int, default=1, help="number of logical CPUs")
    parser.add_argument("--epochs", type=int, default=2, help="number of epochs; the first one compiles")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights and the order")
    options = parser.parse_args()

    strategy = tf.distribute.get_strategy()
    if options.replicas > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * options.replicas)
        strategy = tf.distribute.MirroredStrategy([f"CPU:{replica_id}" for replica_id in range(options.replicas)])
    data = load(Config(data_dir=options.data_dir))
    keras.utils.set_random_seed(options.seed)
    with strategy.scope():
        model = models.build(options.model, len(data.classes), data.image_shape)
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    epochs = EpochSeconds()
    model.fit(data.train.images, data.train.labels, batch_size=options.batch_size, epochs=options.epochs, verbose=0,
              callbacks=[epochs])
    accuracy = model.evaluate(data.test.images, data.test.labels, batch_size=500, verbose=0)[1]
    print(json.dumps({"images_per_second": round(data.train.size / min(epochs.seconds[1:] or epochs.seconds), 1),
                      "accuracy": round(float(accuracy), 4)}))
    print(f"| `{options.model}`, batch {options.batch_size} | | {100 * accuracy:.2f} % |")


if __name__ == "__main__":
    main()
