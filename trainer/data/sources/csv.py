"""Images that CSV files list with their classes; all else is as in class folders (folder.py).

    file,label,split
    cats/1.jpg,cat,train
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trainer.data.bad_examples import BadExamples
from trainer.data.csv_files.listed import find_listed
from trainer.data.sources.folder import open_images

if TYPE_CHECKING:
    from trainer.config import Config
    from trainer.data.dataset import Dataset


def load(config: Config) -> Dataset:
    """Finds the images that the CSV file `--data_dir`, or those in that folder, list.

    Raises:
        DataError: if there are none, or more rows and images that can't be used than `--max_bad_records`.
    """
    bad = BadExamples(config.max_bad_records)
    source = Path(config.data_dir or ".").expanduser()
    return open_images("csv", config, *find_listed(source, config.validation_fraction, bad, config.model_dir), bad)
