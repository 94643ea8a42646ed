"""The same training as a user of Keras writes it: `compile` and `fit` on arrays.

    python benchmarks/keras_fit.py --data_dir=FOLDER [--model=cnn3] [--batch_size=128] [--replicas=1] [--epochs=2]

Prints a JSON line: images_per_second of the best epoch after the first, and the test accuracy.
"""

import argparse
import json
import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, os.getcwd())

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from trainer import models  # noqa: E402
from trainer.config import Config  # noqa: E402
from trainer.data.dataset import load  # noqa: E402


class EpochSeconds(keras.callbacks.Callback):
    """Collects how long each epoch took."""

    def on_train_begin(self, logs=None):
        """Starts with none."""
        self.all = []

    def on_epoch_begin(self, epoch, logs=None):
        """Notes the time."""
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        """Notes how long it took."""
        self.all.append(time.perf_counter() - self._began)


def main():
    """Trains and prints."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--model", default="cnn3")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    strategy = tf.distribute.get_strategy()
    if options.replicas > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * options.replicas)
        strategy = tf.distribute.MirroredStrategy([f"CPU:{number}" for number in range(options.replicas)])
    data = load(Config(data_dir=options.data_dir))
    keras.utils.set_random_seed(options.seed)
    with strategy.scope():
        model = models.build(options.model, len(data.classes), data.image_shape)
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    seconds = EpochSeconds()
    model.fit(data.train.images, data.train.labels, batch_size=options.batch_size, epochs=options.epochs, verbose=0,
              callbacks=[seconds])
    accuracy = model.evaluate(data.test.images, data.test.labels, batch_size=500, verbose=0)[1]
    print(json.dumps({"images_per_second": round(data.train.size / min(seconds.all[1:] or seconds.all), 1),
                      "accuracy": round(float(accuracy), 4)}))


if __name__ == "__main__":
    main()
