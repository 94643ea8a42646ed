"""TensorBoard's event files, one folder a split, cut back like metrics.jsonl when a run goes on.

The HParams plugin takes each folder of event files that holds a session's start as a row of its table, and of the
scalars those in that folder and below it. In `tensorboard/eval` it finds loss and accuracy, whichever folder above
TensorBoard is pointed at.
"""

from pathlib import Path

from tensorboard.plugins.hparams import api

from trainer.process.tf_import import tf

SPLITS = ("train", "eval")
_HPARAMS_SPLIT = "eval"
_OF_THE_START = {"model_dir", "resume"}  # say where and how it was started, not what was run


class TensorBoardWriter:
    """Writes scalars as event files.

    Every start of a run writes new files; the ones before it are cut back to the sizes that the
    checkpoint knows, and later ones are removed, so that no step is there twice.

    Args:
        folder: The run's `tensorboard/`.
        sizes: Relative path to size in bytes of what is valid.

    Attributes:
        missing: How many of those bytes weren't there.
    """

    def __init__(self, folder, sizes):
        self._folder = Path(folder)
        self.missing = 0
        for name, size in sizes.items():
            path = self._folder / name
            self.missing += max(0, size - (path.stat().st_size if path.exists() else 0))
        for path in self._files():
            size = sizes.get(str(path.relative_to(self._folder)))
            if size is None:
                path.unlink()
            elif path.stat().st_size > size:
                with open(path, "r+b") as file:
                    file.truncate(size)
        self._writers = {split: tf.summary.create_file_writer(str(self._folder / split)) for split in SPLITS}

    def write(self, split, step, scalars):
        """Writes scalars at a step.

        Args:
            split: train or eval.
            step: The step.
            scalars: Tag to number; None is left out.
        """
        with self._writers[split].as_default():
            for tag, value in scalars.items():
                if value is not None:
                    tf.summary.scalar(tag, value, step=step)

    def write_images(self, split, step, images):
        """Likewise images: tag to uint8 [n, height, width, channels]."""
        with self._writers[split].as_default():
            for tag, value in images.items():
                tf.summary.image(tag, value, step=step, max_outputs=len(value))

    def write_settings(self, settings):
        """Writes a run's settings for the HParams table: once a run, before its first step.

        Args:
            settings: Name to bool, number, string, list or tuple. None and "" are left out.
        """
        values = {name: _cell(value) for name, value in settings.items()
                  if name not in _OF_THE_START and value is not None and value != ""}
        with self._writers[_HPARAMS_SPLIT].as_default():
            # Without a group of its own each run is a row. By default those of the same settings are one, with the
            # average of their figures.
            api.hparams(values, trial_id="")

    def flush(self):
        """Hands all to the operating system. Returns the sizes, as the constructor takes them."""
        for writer in self._writers.values():
            writer.flush()
        return {str(path.relative_to(self._folder)): path.stat().st_size for path in self._files()}

    def close(self):
        """Closes the files."""
        for writer in self._writers.values():
            writer.close()

    def _files(self):
        return sorted(self._folder.glob("*/events.out.tfevents.*"))


def _cell(value):
    return ",".join(map(str, value)) or "none" if isinstance(value, (list, tuple)) else value
