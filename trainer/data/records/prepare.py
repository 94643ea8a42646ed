"""Images in class folders, or in CSV files, to TFRecord shards with an index.

    scan → split and shuffle → cut into shards → write each, several at once → index

What goes into which shard follows from the names alone, so the same folder gives the same bytes. A finished
shard leaves a note in OUT/.work; a start after a kill writes only those that have none.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from trainer.data.bad_examples import BadExamples
from trainer.data.csv_files.listed import find_listed
from trainer.data.images.class_folders import divide
from trainer.data.images.folder_scan import Scan, scan
from trainer.data.images.layout import shown
from trainer.data.order import permutation
from trainer.data.records import index, shards
from trainer.errors import DataError, UsageError
from trainer.process.exit import tell
from trainer.process.host import cores
from trainer.process.progress_bar import bar
from trainer.storage import durable
from trainer.storage.folder_lock import FolderLock

if TYPE_CHECKING:
    from trainer.commands.prepare import Options

_SHARD = 128 * 2**20  # bytes, about
_WORK = ".work"
_VERSION = 2  # of what is written for an image


class Task(NamedTuple):
    """A shard to be written.

    Args:
        split_name: "train", "validation" or "test".
        path: The shard's path.
        sources: The images that the shard holds.
        digest: A hash of all that the shard depends on.
    """

    split_name: str
    path: Path
    sources: list[shards.Source]
    digest: str


def prepare(source: Path, out: Path, options: Options, *, is_listed: bool = False) -> str:
    """Writes the shards and their index.

    Args:
        source: The folder of images, or the CSV file or files that list them.
        out: The folder for the shards and their index.
        options: The command's flags.
        is_listed: Whether CSV files say which images there are.

    Returns:
        The human-readable summary of what was written.

    Raises:
        DataError: naming every image and file that can't be used, if there are more than `--max_bad_records`.
        UsageError: if `out` holds another data set.
        StorageError: if there is no room.
    """
    bad = BadExamples(options.max_bad_records)
    if is_listed:
        source, scanned, division = find_listed(source, options.validation_fraction, bad)
    else:
        scanned = scan(source)
        division = divide(source, scanned, options.validation_fraction, bad)
    for warning in division.warnings:
        tell(f"lockstep: warning: {warning}")
    by_split, classes = division.by_split, division.classes
    tasks = _cut(source, out, scanned, by_split, classes, options)
    digest = hashlib.sha256("".join(task.digest for task in tasks).encode()).hexdigest()
    out.mkdir(parents=True, exist_ok=True)
    lock = FolderLock(out)
    lock.take()
    try:
        if _is_written(out, digest):
            return f"{out} holds these records already; nothing to do"
        written = _write_all(tasks, out, options.resize_shorter, bad)
        bad.check(shown=None)
        splits = {split_name: _joined(split_name, tasks, written) for split_name in by_split}
        channels = 1 if all(note["grey"] for _, note in written.values()) else 3
        index.write(out, classes, splits, channels, made_from=digest, first_label=shards.FIRST_LABEL,
                    left_out=bad.names())
        shutil.rmtree(out / _WORK, ignore_errors=True)
    finally:
        lock.give_back()
    return _summary(out, classes, splits, bad)


def _cut(source: Path, out: Path, scanned: Scan, by_split: Mapping[str, Mapping[str, Sequence[str]]],
         classes: Sequence[str], options: Options) -> list[Task]:
    """The tasks: every split shuffled, because classes must not lie together, and cut into shards."""
    tasks = []
    sizes = {split_name: sum(scanned.images[name].size for names in by_class.values() for name in names)
             for split_name, by_class in by_split.items()}
    for split_name, by_class in by_split.items():
        names = [(name, label) for label, text in enumerate(classes) for name in by_class.get(text, ())]
        wanted = -(-sizes[split_name] // _SHARD)
        if options.shards:
            wanted = round(options.shards * sizes[split_name] / max(1, sizes["train"]))
        count = max(1, min(wanted, len(names)))
        order = permutation(0, 0, len(names))
        for shard_index, part in enumerate(np.array_split(order, count)):
            chosen = [names[int(position)] for position in part]
            sources = [shards.Source(os.path.join(source, name), shown(name), label, classes[label])
                       for name, label in chosen]
            described = [[entry.name, entry.label, entry.text, scanned.images[name].size]
                         for entry, (name, _) in zip(sources, chosen, strict=True)]
            text = json.dumps([_VERSION, split_name, shard_index, count, options.resize_shorter, described])
            tasks.append(Task(split_name, out / f"{split_name}-{shard_index:05d}-of-{count:05d}", sources,
                              hashlib.sha256(text.encode()).hexdigest()))
    return tasks


def _is_written(out: Path, digest: str) -> bool:
    """Whether `out` holds what would be written.

    Raises:
        UsageError: if `out` holds another data set.
    """
    try:
        written_digest = json.loads((out / index.NAME).read_text(encoding="utf-8")).get("made_from")
    except FileNotFoundError:
        return False
    except (OSError, ValueError, AttributeError):
        written_digest = None
    if written_digest == digest:
        index.read(out)
        return True
    raise UsageError(f"{out} holds another data set, or one that was prepared with other flags",
                     "use another --out, or remove that folder")


def _write_all(tasks: Sequence[Task], out: Path, resize_shorter: int,
               bad: BadExamples) -> dict[Path, tuple[np.ndarray, dict[str, Any]]]:
    """Writes all shards that aren't written yet. Returns the path of each shard to (rows of `index.ROW`, note)."""
    work = out / _WORK
    work.mkdir(exist_ok=True)
    written = {task.path: note for task in tasks if (note := _note_of(work, task))}
    todo = [task for task in tasks if task.path not in written]
    # Images that are encoded again may grow; those that are shrunk seldom do.
    size = sum(os.path.getsize(source.path) for task in todo for source in task.sources)
    durable.require_room(out, int(1.05 * size), f"{len(todo):,} shards")
    with ThreadPoolExecutor(cores()) as threads, bar("images", sum(len(task.sources) for task in tasks)) as advance:
        advance(sum(len(task.sources) for task in tasks if task.path in written))
        running = {threads.submit(_write, work, task, resize_shorter): task for task in todo}
        try:
            for done in as_completed(running):
                written[running[done].path] = done.result()
                advance(len(running[done].sources))
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
    for _, note in written.values():
        for name, problem in note["left_out"].items():
            bad.note_file(name, problem)
    return written


def _write(work: Path, task: Task, resize_shorter: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Writes a shard and its note. Returns (rows of `index.ROW`, note)."""
    rows, left_out, is_grey = shards.write_shard(task.path, task.sources, resize_shorter)
    note = {"digest": task.digest, "left_out": left_out, "grey": is_grey,
            "shard": index.describe_shard(task.path, task.path.parent, len(rows))}
    np.save(work / f"{task.path.name}.npy", rows)
    durable.write_durably(work / f"{task.path.name}.json", json.dumps(note))
    return rows, note


def _note_of(work: Path, task: Task) -> tuple[np.ndarray, dict[str, Any]] | None:
    """(rows of `index.ROW`, note) of a shard that an earlier start finished, or None."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        note = json.loads((work / f"{task.path.name}.json").read_text(encoding="utf-8"))
        rows = np.load(work / f"{task.path.name}.npy", allow_pickle=False)
        shard = note["shard"]
        if (note["digest"] == task.digest and type(note["grey"]) is bool
                and rows.dtype == index.ROW and len(rows) == shard["examples"]
                and index.edges_sha256(task.path) == shard["edges_sha256"]
                and task.path.stat().st_size == shard["bytes"]):
            return rows, note
    return None


def _joined(split_name: str, tasks: Sequence[Task],
            written: Mapping[Path, tuple[np.ndarray, dict[str, Any]]]) -> index.IndexedSplit:
    """The index of a split's shards."""
    parts = [written[task.path] for task in tasks if task.split_name == split_name]
    for shard_index, (rows, _) in enumerate(parts):
        rows["shard"] = shard_index
    if not sum(len(rows) for rows, _ in parts):
        raise DataError(f"the {split_name} split has no image that can be used",
                        "prepare it with --max_bad_records=0, which lists what is wrong with each")
    return index.IndexedSplit([note["shard"] for _, note in parts], np.concatenate([rows for rows, _ in parts]), {})


def _summary(out: Path, classes: Sequence[str], splits: Mapping[str, index.IndexedSplit], bad: BadExamples) -> str:
    """The human-readable summary of the index."""
    lines = []
    for split_name, split in splits.items():
        counts = np.bincount(split.rows["label"], minlength=len(classes))
        size = sum(shard["bytes"] for shard in split.shards)
        lines.append(f"{split_name:<10}{len(split.rows):>12,} images, {size / 1e6:,.1f} MB in "
                     f"{len(split.shards):,} shards; "
                     f"{counts.min():,} to {counts.max():,} of each of {len(classes):,} classes")
    if bad.count:
        lines.append(f"left out: {bad.count:,}; {out / index.NAME} names them")
    lines.append(f"train on them: {index.training_command(out)}")
    return "\n".join(lines)
