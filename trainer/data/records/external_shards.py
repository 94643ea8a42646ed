"""An index for TFRecord shards that other programs made: TensorFlow's ImageNet records, TensorFlow Datasets' shards.

The shards stay as they are. Their names are those of shard_names.py, the keys of their records those below.
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
from trainer.data.pipeline import with_threads
from trainer.data.records import index
from trainer.data.records.shard_names import find_shards
from trainer.errors import DataError, first_few
from trainer.process import host
from trainer.process.exit import tell
from trainer.process.progress_bar import bar
from trainer.process.tf_import import tf

_HEADER, _FOOTER = 12, 4  # bytes of a TFRecord around its content
# What people call the encoded image, its label and the name of its class, the most usual first; in any case.
_IMAGE_KEYS = ("image/encoded", "image", "image_raw", "encoded", "encoded_image", "image/image_raw", "image_bytes",
               "img", "jpeg", "png", "x")
_LABEL_KEYS = ("image/class/label", "label", "labels", "class", "target", "class_id", "label_id", "category",
               "image/label", "image/class", "class/label", "y", "one_hot_class")
_TEXT_KEYS = ("image/class/text", "class_name", "label_name", "label_text", "class/text", "image/class/synset")
# Files with a name of a class in each line: TensorFlow Datasets' and others'.
_NAMES_FILES = ("label.labels.txt", "labels.txt", "classes.txt")


class _Parts(NamedTuple):
    """What a record holds.

    Args:
        encoded: The encoded image.
        label: Its label; None if there is none, or only a name.
        text: The name of its class, or None.
    """

    encoded: bytes
    label: int | None
    text: str | None


class _Shard(NamedTuple):
    """What was read of a shard.

    Args:
        rows: Of `index.ROW`, with shard 0.
        problems: Rows of images that can't be used to what is wrong with them.
        texts: Labels to names of classes.
        names: For each row the name of its class, where it has a name and no label; else None.
        is_grey: Whether all images are grey.
    """

    rows: np.ndarray
    problems: dict[int, str]
    texts: dict[int, str]
    names: list[str | None]
    is_grey: bool


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
    by_split, unused = find_shards(source)
    if "train" not in by_split:
        raise DataError(f"{source} has shards of {' and '.join(by_split)} only", "put train-… shards there")
    if unused:
        tell(f"lockstep: warning: not used, because their names say no split: {', '.join(unused[:5])}"
             + (f" and {len(unused) - 5:,} more" if len(unused) > 5 else ""))
    out.mkdir(parents=True, exist_ok=True)
    paths = [path for shards in by_split.values() for path in shards]
    with ThreadPoolExecutor(host.cores()) as threads, bar("shards", len(paths)) as advance:
        def read(path: Path) -> _Shard:
            shard = _read_shard(path)
            advance(1)
            return shard

        read_shards = dict(zip(paths, threads.map(read, paths), strict=True))
    _number_names(list(read_shards.values()))
    unlabelled = _leave_out_unlabelled(by_split, read_shards)
    classes, first = _classes(source, [read_shards[path] for shards in by_split.values() for path in shards])
    splits = {split_name: _join(out, shards, read_shards, first) for split_name, shards in by_split.items()}
    channels = 1 if all(read_shards[path].is_grey for shards in by_split.values() for path in shards) else 3
    index.write(out, classes, splits, channels, first_label=first)
    counts = ", ".join(f"{len(split.rows):,} {split_name}" for split_name, split in splits.items())
    return (f"index of {counts} images in {len(paths):,} shards, {len(classes):,} classes{unlabelled}\n"
            f"train on them: {index.training_command(out)}")


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
                raise DataError(f"{path}, record {unlabelled[0]:,}: it has no label",
                                "give every record a label, from 0 or 1 on, or leave the record out and write the "
                                "shard again")
            del by_split["test"]
            return f"; the {len(shards):,} test shards have no labels, and are left out"
    return ""


def _number_names(shards: Collection[_Shard]) -> None:
    """Gives labels to the rows that have the name of a class alone: numbers in the order of the names."""
    classes = sorted({name for shard in shards for name in shard.names if name is not None})
    numbers = {name: number for number, name in enumerate(classes)}
    for shard in shards:
        for row, name in enumerate(shard.names):
            if name is not None:
                shard.rows["label"][row] = numbers[name]
        shard.texts.update(enumerate(classes))


def _read_shard(path: Path) -> _Shard:
    rows, problems, texts, names, begin, is_grey = [], {}, {}, [], 0, True
    try:
        records = cast("Iterator[Any]", with_threads(tf.data.TFRecordDataset(str(path)), 1).as_numpy_iterator())
        for row, record in enumerate(records):
            encoded, label, text = _parts(path, row, record)
            header = pillow_reader.read_header(io.BytesIO(encoded))
            if header.problem:
                problems[row] = header.problem
            is_grey &= bool(header.problem or header.traits & pillow_reader.GREY)
            if text is not None and label is not None:
                texts[label] = text
            names.append(text if label is None else None)
            rows.append((0, begin + _HEADER + record.index(encoded), len(encoded), zlib.crc32(encoded),
                         -1 if label is None else label, header.width, header.height, header.kind, header.orientation))
            begin += _HEADER + len(record) + _FOOTER
    except tf.errors.DataLossError:
        raise DataError(f"{path} is damaged: record {len(rows):,} is not what was written, or the file is not a "
                        "TFRecord, or is compressed", "get the shard again; decompress it if it is (gunzip)") from None
    if rows and len(problems) == len(rows):
        raise DataError(f"{path}: no record holds an image file (JPEG, PNG, …); of record 0: {problems[0]}",
                        "pixels without a format are read by a function of yours: --dataset=package.module:function")
    return _Shard(np.array(rows, index.ROW), problems, texts, names, is_grey)


def _parts(path: Path, row: int, record: bytes) -> _Parts:
    """What the record in a row of a shard holds."""
    example = tf.train.Example()
    try:
        example.ParseFromString(record)
    except Exception:  # protobuf's own kind of error differs between its implementations
        raise DataError(f"{path}, record {row:,}: it holds no tf.train.Example", "write the records as "
                        "tf.train.Example, or read them with a function: --dataset=package.module:function") from None
    features = {name.casefold(): feature for name, feature in example.features.feature.items()}
    encoded = _first(features, _IMAGE_KEYS, "bytes_list")
    if not encoded:
        keys = first_few(sorted(example.features.feature)) or "none"
        raise DataError(f"{path}, record {row:,}: it has neither image/encoded (with image/class/label) nor image "
                        f"(with label), nor another usual key; its keys are {keys}",
                        "--dataset=package.module:function can read records of any kind")
    texts = _first(features, _TEXT_KEYS, "bytes_list") or _first(features, _LABEL_KEYS, "bytes_list")
    numbers = _first(features, _LABEL_KEYS, "int64_list") or _first(features, _LABEL_KEYS, "float_list")
    if len(encoded) > 1 or len(texts) > 1 or (len(numbers) > 1 and not sorted(numbers)[-2:] == [0, 1]) or any(
            number != int(number) for number in numbers):
        raise DataError(f"{path}, record {row:,}: it has several images or labels, or one that is no class",
                        "an image has one class here; --dataset=package.module:function can choose one")
    label = None if not numbers else int(numbers[0]) if len(numbers) == 1 else list(numbers).index(1)
    return _Parts(encoded[0], label, texts[0].decode("utf-8", "replace") if texts else None)


def _first(features: Mapping[str, Any], keys: Sequence[str], kind: str) -> Sequence[Any]:
    """The values of a kind of the first key that has any; () if none has."""
    return next((values for key in keys if key in features and (values := getattr(features[key], kind).value)), ())


def _classes(source: Path, shards: Collection[_Shard]) -> tuple[tuple[str, ...], int]:
    """(names of the classes, the label of the first)."""
    labels = np.unique(np.concatenate([shard.rows["label"] for shard in shards]))
    texts = {label: text for shard in shards for label, text in shard.texts.items()}
    names_file = next((source / name for name in _NAMES_FILES if (source / name).is_file() and not texts), None)
    if names_file:
        names = tuple(names_file.read_text(encoding="utf-8", errors="replace").splitlines())
        if labels.max() < len(names) or (labels.min() == 1 and labels.max() == len(names)):
            return names, int(labels.max() == len(names))
        raise DataError(f"{names_file} names {len(names):,} classes, and a label is {labels.max():,}",
                        "give it a line for each class, from label 0 on, or remove it")
    first = min(1, int(labels.min()))
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
