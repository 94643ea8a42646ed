"""An index for TFRecord shards that other programs made: TensorFlow's ImageNet records, TensorFlow Datasets' shards.

The shards stay as they are, compressed ones are not read. Known names: train-00000-of-01024 and
NAME-train.tfrecord-00000-of-00004, with any usual name of a split (layout.py) in place of train.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from trainer.data.images import pillow_reader
from trainer.data.images.layout import SPLIT_NAMES, split_of
from trainer.data.pipeline import with_threads
from trainer.data.records import index
from trainer.errors import DataError
from trainer.process import host
from trainer.process.progress_bar import bar
from trainer.process.tf_import import tf

_HEADER, _FOOTER = 12, 4  # bytes of a TFRecord around its content
# (encoded image, label, name of the class) of the two kinds of records.
_KEYS: tuple[tuple[str, str, str | None], ...] = (
    ("image/encoded", "image/class/label", "image/class/text"), ("image", "label", None))
_TFDS_LABELS = "label.labels.txt"


class _Shard(NamedTuple):
    """What was read of a shard.

    Args:
        rows: Of `index.ROW`, with shard 0.
        problems: Rows of images that can't be used to what is wrong with them.
        texts: Labels to names of classes.
        is_grey: Whether all images are grey.
    """

    rows: np.ndarray
    problems: dict[int, str]
    texts: dict[int, str]
    is_grey: bool


def shards_in(folder: Path) -> dict[str, list[Path]]:
    """The TFRecord shards in a folder.

    Returns:
        {"train": paths, "validation": paths, "test": paths}, each left out where there are none; {} for a folder of
        something else.

    Raises:
        DataError: if one of a split's shards is missing, or a split has shards of two names.
    """
    paths: dict[tuple[str, str, int], dict[int, Path]] = {}  # (split, its name in files, count) to index to path
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        match = index.SHARD_NAME.fullmatch(path.name)
        if match and path.is_file() and (split_name := split_of(match[1])):
            paths.setdefault((split_name, match[1], int(match[3])), {})[int(match[2])] = path
    by_split: dict[str, list[Path]] = {}
    for (split_name, name, count), shards in sorted(paths.items()):
        missing = sorted(set(range(count)) - shards.keys())
        if missing:
            raise DataError(f"{folder} has {len(shards):,} of {count:,} {name} shards; the first that is missing is "
                            f"number {missing[0]}", "put all shards there")
        if split_name in by_split:
            raise DataError(f"{folder} has two sets of {split_name} shards: {by_split[split_name][0].name} and "
                            f"{shards[0].name}", "put one of them elsewhere")
        by_split[split_name] = [shards[shard_index] for shard_index in range(count)]
    return {split_name: by_split[split_name] for split_name in SPLIT_NAMES if split_name in by_split}


def make_index(source: Path, out: Path) -> str:
    """Reads all records and writes their index.

    Args:
        source: The folder with the shards.
        out: The folder for the index; it may be the same.

    Returns:
        The human-readable summary of the index.

    Raises:
        DataError: naming a record that is damaged or has no image or label.
    """
    by_split = shards_in(source)
    if "train" not in by_split:
        raise DataError(f"{source} has shards of {' and '.join(by_split)} only", "put train-… shards there")
    out.mkdir(parents=True, exist_ok=True)
    paths = [path for shards in by_split.values() for path in shards]
    with ThreadPoolExecutor(host.cores()) as threads, bar("shards", len(paths)) as advance:
        def read(path: Path) -> _Shard:
            shard = _read_shard(path)
            advance(1)
            return shard

        read_shards = dict(zip(paths, threads.map(read, paths), strict=True))
    unlabelled = _leave_out_unlabelled(by_split, read_shards)
    classes, first = _classes(source, [read_shards[path] for shards in by_split.values() for path in shards])
    splits = {split_name: _join(out, shards, read_shards, first) for split_name, shards in by_split.items()}
    channels = 1 if all(read_shards[path].is_grey for shards in by_split.values() for path in shards) else 3
    index.write(out, classes, splits, channels, first_label=first)
    counts = ", ".join(f"{len(split.rows):,} {split_name}" for split_name, split in splits.items())
    return (f"index of {counts} images in {len(paths):,} shards, {len(classes):,} classes{unlabelled}\n"
            f"train on them: python -m trainer.main --dataset=records --data_dir={out}")


def _leave_out_unlabelled(by_split: dict[str, list[Path]], read_shards: Mapping[Path, _Shard]) -> str:
    """Leaves out a test split without labels, as contests publish it. Returns what to tell of it, or "".

    Raises:
        DataError: if another split has a record without a label.
    """
    for split_name, shards in list(by_split.items()):
        for path in shards:
            unlabelled = np.flatnonzero(read_shards[path].rows["label"] < 0)
            if not len(unlabelled):
                continue
            if split_name != "test":
                raise DataError(f"{path}, record {unlabelled[0]:,}: it has no label", "labels begin at 0 or 1")
            del by_split["test"]
            return f"; the {len(shards):,} test shards have no labels, and are left out"
    return ""


def _read_shard(path: Path) -> _Shard:
    rows, problems, texts, begin, is_grey = [], {}, {}, 0, True
    try:
        records = cast("Iterator[Any]", with_threads(tf.data.TFRecordDataset(str(path)), 1).as_numpy_iterator())
        for row, record in enumerate(records):
            encoded, label, text = _parts(path, row, record)
            header = pillow_reader.read_header(io.BytesIO(encoded))
            if header.problem:
                problems[row] = header.problem
            is_grey &= bool(header.problem or header.traits & pillow_reader.GREY)
            if text:
                texts[label] = text
            rows.append((0, begin + _HEADER + record.index(encoded), len(encoded), zlib.crc32(encoded), label,
                         header.width, header.height, header.kind, header.orientation))
            begin += _HEADER + len(record) + _FOOTER
    except tf.errors.DataLossError:
        raise DataError(f"{path} is damaged: record {len(rows):,} is not what was written, or the file is not a "
                        "TFRecord", "get the shard again") from None
    return _Shard(np.array(rows, index.ROW), problems, texts, is_grey)


def _parts(path: Path, row: int, record: bytes) -> tuple[bytes, int, str | None]:
    """(encoded image, label or -1, name of its class or None) of the record in a row of a shard."""
    example = tf.train.Example()
    try:
        example.ParseFromString(record)
    except Exception:  # protobuf's own kind of error differs between its implementations
        raise DataError(f"{path}, record {row:,}: it holds no tf.train.Example", "check what the file is") from None
    features = example.features.feature
    for image, label, text in _KEYS:
        if features[image].bytes_list.value:
            texts = features[text].bytes_list.value if text else ()
            labels = features[label].int64_list.value
            return (features[image].bytes_list.value[0], labels[0] if labels else -1,
                    texts[0].decode("utf-8", "replace") if texts else None)
    raise DataError(f"{path}, record {row:,}: it has neither image/encoded (with image/class/label) nor image (with "
                    "label)", "--dataset=package.module:function can read records of any kind")


def _classes(source: Path, shards: Collection[_Shard]) -> tuple[tuple[str, ...], int]:
    """(names of the classes, the label of the first)."""
    labels = np.unique(np.concatenate([shard.rows["label"] for shard in shards]))
    names_file = source / _TFDS_LABELS
    if names_file.exists():
        return tuple(names_file.read_text(encoding="utf-8").splitlines()), 0
    first = min(1, int(labels.min()))
    texts = {label: text for shard in shards for label, text in shard.texts.items()}
    return tuple(texts.get(label, str(label)) for label in range(first, int(labels.max()) + 1)), first


def _join(out: Path, paths: Sequence[Path], read_shards: Mapping[Path, _Shard], first: int) -> index.IndexedSplit:
    """The index of a split's shards; `first` is the label of the first class."""
    rows, problems, begin = [], {}, 0
    for shard_index, path in enumerate(paths):
        shard = read_shards[path]
        shard.rows["shard"] = shard_index
        shard.rows["label"] -= first
        rows.append(shard.rows)
        problems |= {begin + row: problem for row, problem in shard.problems.items()}
        begin += len(shard.rows)
    described = [index.describe_shard(path, out, len(read_shards[path].rows)) for path in paths]
    return index.IndexedSplit(described, np.concatenate(rows), problems)
