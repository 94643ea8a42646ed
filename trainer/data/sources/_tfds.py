"""Data sets of TensorFlow Datasets: `--dataset=tfds:NAME`, with the extra `tfds` installed.

That library fetches and writes them as TFRecord shards, which are read as all others are: by an index, lane by lane.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trainer.data.records import external_shards, index
from trainer.data.sources.records import open_index
from trainer.errors import DataError, UsageError

if TYPE_CHECKING:
    from trainer.config import Config
    from trainer.data.dataset import Dataset

_INDEX = "lockstep"


def load(config: Config) -> Dataset:
    """Has a data set prepared, unless that was done before, and opens it.

    Args:
        config: As in `index_folder`.

    Raises:
        UsageError: as `index_folder` does.
        DataError: as `index_folder` does; or if more images can't be used than `--max_bad_records`.
    """
    return open_index(index_folder(config), config, config.dataset)


def index_folder(config: Config) -> Path:
    """The folder with the index of a data set, which is prepared unless that was done before.

    Args:
        config: The settings; `--data_dir` is TensorFlow Datasets' folder (default: the library's own default).

    Raises:
        UsageError: if the library isn't installed, or knows no such data set.
        DataError: if it can't be fetched, or holds no labelled images.
    """
    try:
        import tensorflow_datasets as library  # pyright: ignore[reportMissingImports]  an extra
    except ImportError:
        raise UsageError("--dataset=tfds:NAME needs TensorFlow Datasets, which is not installed",
                         "pip install 'lockstep-trainer[tfds]'") from None
    name = config.dataset.removeprefix("tfds:")
    try:
        builder = library.builder(name, data_dir=config.data_dir or None)
    except (ValueError, library.core.registered.DatasetNotFoundError) as error:
        raise UsageError(f"--dataset={config.dataset}: {(str(error).splitlines() or ['unknown'])[0]}",
                         "see tensorflow.org/datasets for the names") from None
    try:
        builder.download_and_prepare()
    except Exception as error:  # network, disk, parsing: each has its own
        raise DataError(f"TensorFlow Datasets could not prepare {name}: "
                        f"{(str(error).splitlines() or [type(error).__name__])[0][:200]}",
                        "prepare it yourself where there is a network, and set --data_dir to its folder") from None
    folder = Path(builder.data_path)
    if not (folder / _INDEX / index.NAME).exists():
        external_shards.make_index(folder, folder / _INDEX)
    return folder / _INDEX
