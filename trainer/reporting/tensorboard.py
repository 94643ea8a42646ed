"""TensorBoard's event files, one folder per split; when a run resumes, they are cut back as metrics.jsonl is.

The HParams plugin makes a row of its table of each folder whose event files hold the start of a session, with the
scalars in that folder and below it. In `tensorboard/eval` the plugin finds loss and accuracy, whichever parent folder
TensorBoard is pointed at.

TensorBoard shows scalars in groups, by what stands before the first slash of a tag: quality/loss, speed/step_ms. Before
version 0.2 tags had no groups; a run that began then goes on under its old tags, so that no curve breaks off.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]  made at run time
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata  # pyright: ignore[reportAttributeAccessIssue]
from tensorboard.plugins.hparams import api
from tensorboard.plugins.image import metadata as image_metadata
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.util.tensor_util import make_tensor_proto

from trainer.data.pipeline import with_threads
from trainer.process.tf_import import tf

SPLITS = ("train", "eval")
_GROUPS = {"quality": ("loss", "accuracy", "learning_rate"),
           "speed": ("images_per_second", "waiting_share", "all_reduce_share"),
           "health": ("skipped_steps", "loss_spikes", "gradient_norm"), "data": ("bad_records",)}
# A name in metrics.jsonl, which was the tag before there were groups, to its tag.
TAGS = {name: f"{group}/{name}" for group, names in _GROUPS.items() for name in names}
_HPARAMS_SPLIT = "eval"
_PNG_LEVEL = 1  # a quarter of the time, and a third more bytes
_START_SETTINGS = {"model_dir", "resume"}  # say where and how a run was started, not what was run


class TensorBoardWriter:
    """Writes scalars, images and settings as event files.

    Every start of a run writes new files. Files that the checkpoint knows are cut back to the sizes in it, and files
    that it doesn't know are removed, so that no step occurs twice.

    Args:
        folder: The run's `tensorboard/`.
        sizes: Relative path to the number of valid bytes, for each file that the checkpoint knows.

    Attributes:
        missing: How many of the valid bytes the files did not have.
    """

    def __init__(self, folder: Path | str, sizes: Mapping[str, int]) -> None:
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
        known = [self._folder / name for name in sorted(sizes) if (self._folder / name).exists()]
        self._tags = {} if _have_ungrouped_tags(known) else TAGS
        self._writers = {split: tf.summary.create_file_writer(str(self._folder / split)) for split in SPLITS}

    def write(self, split: str, step: int, scalars: Mapping[str, float | None]) -> None:
        """Writes scalars at a step.

        Args:
            split: train or eval.
            step: The step.
            scalars: A name of `TAGS`, or a tag with a group, to number; None is not written.
        """
        summary = Summary()
        for name, value in scalars.items():
            if value is not None:
                summary.MergeFrom(scalar_pb(self._tags.get(name, name), value))
        self._write(split, step, summary)

    def write_images(self, split: str, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Writes images at a step.

        Args:
            split: train or eval.
            step: The step.
            images: Tag to uint8 [n, height, width, channels].
        """
        with self._writers[split].as_default():
            for tag, value in images.items():
                tf.summary.image(tag, value, step=step, max_outputs=len(value))

    def write_drawings(self, split: str, step: int, drawings: Mapping[str, Image.Image]) -> None:
        """Writes drawings at a step; `write_images` takes three times as long for them.

        Args:
            split: train or eval.
            step: The step.
            drawings: Tag to drawing.
        """
        summary = Summary()
        for tag, drawing in drawings.items():
            written = io.BytesIO()
            drawing.save(written, "PNG", compress_level=_PNG_LEVEL)
            parts = [*(str(side).encode() for side in drawing.size), written.getvalue()]
            summary.value.add(tag=tag, metadata=image_metadata.create_summary_metadata(None, ""),
                              tensor=make_tensor_proto(parts))
        self._write(split, step, summary)

    def write_text(self, split: str, step: int, texts: Mapping[str, str]) -> None:
        """Writes texts at a step.

        Args:
            split: train or eval.
            step: The step.
            texts: Tag to Markdown.
        """
        with self._writers[split].as_default():
            for tag, text in texts.items():
                tf.summary.text(tag, text, step=step)

    def write_model(self, layers: str) -> None:
        """Writes a model's layers for the tab of graphs: once a run, before its first step.

        Args:
            layers: As `keras.Model.to_json` gives them.
        """
        plugin = SummaryMetadata.PluginData(plugin_name="graph_keras_model", content=b"1")  # its version
        summary = Summary()
        summary.value.add(tag="keras", metadata=SummaryMetadata(plugin_data=plugin),
                          tensor=make_tensor_proto(layers.encode()))
        self._write("train", 0, summary)

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """Writes a run's settings for the HParams table: once a run, before its first step.

        Args:
            settings: Name to bool, number, string, list or tuple. None and "" are not written.
        """
        values = {name: _cell(value) for name, value in settings.items()
                  if name not in _START_SETTINGS and value is not None and value != ""}
        with self._writers[_HPARAMS_SPLIT].as_default():
            # Without a group of its own each run is a row. By default runs of the same settings are one row, with
            # the average of their scalars.
            api.hparams(values, trial_id="")

    def flush(self) -> dict[str, int]:
        """Hands all events to the operating system; returns relative path to size in bytes for each file."""
        for writer in self._writers.values():
            writer.flush()
        return {str(path.relative_to(self._folder)): path.stat().st_size for path in self._files()}

    def close(self) -> None:
        """Closes the files."""
        for writer in self._writers.values():
            writer.close()

    def _write(self, split: str, step: int, summary: Summary) -> None:
        """Writes an event: one for all scalars of a step takes a fifth of the time of one for each."""
        with self._writers[split].as_default():
            tf.summary.experimental.write_raw_pb(summary.SerializeToString(), step=step)

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("*/events.out.tfevents.*"))


def _have_ungrouped_tags(paths: Sequence[Path]) -> bool:
    """Whether event files were begun before tags had groups, as their first scalar says."""
    grouped = set(TAGS.values())
    first = next((tag for path in paths for tag in _tags_in(path) if tag in TAGS or tag in grouped), None)
    return first in TAGS


def _tags_in(path: Path) -> Iterator[str]:
    """The tags in an event file, in order, up to where it can't be read."""
    try:
        for record in with_threads(tf.data.TFRecordDataset(str(path)), 1).as_numpy_iterator():
            yield from (value.tag for value in Event.FromString(record).summary.value)
    except (tf.errors.OpError, DecodeError):
        return  # damaged: what was written so far is kept


def _cell(value: Any) -> Any:
    """A setting as the HParams table takes it: a list becomes a comma list."""
    return ",".join(map(str, value)) or "none" if isinstance(value, (list, tuple)) else value
