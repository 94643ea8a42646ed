"""`prepare`: class folders of images to TFRecord shards with an index, or an index for shards that are there."""

import dataclasses
from pathlib import Path

from trainer.config import Config
from trainer.options import Checked, option
from trainer.process.exit import say
from trainer.process.signals import StopRequest


@dataclasses.dataclass(frozen=True)
class Options(Checked):
    """python -m trainer prepare --data_dir=FOLDER --out=D: images to shards that --dataset=records reads."""

    data_dir: str = option("", "class folders of images, as --dataset=folder reads them; with --dataset=csv what that "
                           "reads; or TFRecord shards with the keys of ImageNet's or TensorFlow Datasets'")
    dataset: str = option("folder", "what --data_dir holds: folder, class folders or TFRecord shards; csv, images that "
                          "CSV files list", choices=("folder", "csv"))
    out: str = option("", "folder for the shards and their index; for TFRecord shards it may be the same folder")
    validation_fraction: float | None = Config.__dataclass_fields__["validation_fraction"]
    resize_shorter: int = option(0, "shrink images so that their shorter side has this many pixels; 0: keep them as "
                                 "they are", least=0, most=65535)
    shards: int = option(0, "number of shards of the training split; 0: as many as make about 128 MiB each", least=0,
                         most=99999)
    max_bad_records: int = option(0, "number of images and files that can't be used to go on with; they are left out "
                                  "and listed", least=0)

    def problems(self) -> list[str]:
        """All that is wrong with the values, as `Checked.problems` describes it."""
        return super().problems() + [f"--{name} is needed" for name in ("data_dir", "out") if not getattr(self, name)]


def run(options: Options) -> None:
    """Writes shards and index, and prints their contents.

    Raises:
        DataError: if there are no images, or too many that can't be used.
    """
    from trainer.process import tf_import  # noqa: F401  first: it keeps back what TensorFlow logs while it is imported

    # isort: split
    from trainer.data.records import external_shards
    from trainer.data.records.prepare import prepare
    from trainer.data.records.shard_names import find_shards

    source, out = Path(options.data_dir).expanduser(), Path(options.out).expanduser()
    # A signal may end the process anywhere: finished shards stay finished.
    with StopRequest(exits_process=True) as stop, stop.nothing_to_save("preparing records"):
        is_listed = options.dataset == "csv"
        say(external_shards.make_index(source, out) if not is_listed and find_shards(source).by_split else
              prepare(source, out, options, is_listed=is_listed))
