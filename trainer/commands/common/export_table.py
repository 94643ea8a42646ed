"""What the exports of a run cost and how good they are, as a table or as JSON."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from trainer.errors import DataError, StorageError
from trainer.process.exit import printable, say
from trainer.storage.manifest import peek_manifest
from trainer.storage.model_dir import ModelDir


def entries_of(model_dir: ModelDir) -> dict[str, dict[str, Any]]:
    """Format to what the manifest of export/ says of it.

    Args:
        model_dir: The run's folder.

    Raises:
        DataError: if there are no exports.
        StorageError: if their manifest is damaged.
    """
    manifest, fault = peek_manifest(model_dir.export)
    again = f"python -m trainer export --model_dir={model_dir.root} writes them"
    if manifest is None:
        if not model_dir.export.exists():
            raise DataError(f"{model_dir.root} holds no exports", again)
        raise StorageError(f"{model_dir.export}: {fault}", f"{again} again")
    return manifest.get("exports") or {}


def show(entries: Mapping[str, Mapping[str, Any]], as_json: bool) -> None:
    """Prints exports.

    Args:
        entries: Format to its entry, as `entries_of` returns them.
        as_json: As a JSON object of these entries.
    """
    if as_json:
        say(json.dumps(entries))
        return
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("format", no_wrap=True)
    table.add_column("in export/", overflow="fold")
    for head in ("accuracy", "MB", "1 image, ms", "32, ms", "step"):
        table.add_column(head, justify="right")
    for cells in rows_of(entries):
        table.add_row(*(Text(printable(cell)) for cell in cells))
    Console(highlight=False).print(table)
    for sentence in sorted({machine_of(entry) for entry in entries.values() if "latency" in entry}):
        say(sentence)


def rows_of(entries: Mapping[str, Mapping[str, Any]]) -> Iterator[list[str]]:
    """The cells of each format's row; "-" for what was not measured."""
    for name, entry in entries.items():
        timed, accuracy = entry.get("latency", {}), entry.get("accuracy")
        yield [name, str(entry["path"]).partition("/")[2], "-" if accuracy is None else f"{accuracy:.2%}",
               f"{entry['bytes'] / 1e6:.2f}",
               *(f"{timed[batch]['ms']:.3g}" if batch in timed else "-" for batch in ("batch_1", "batch_32")),
               f"{entry.get('weights', {}).get('step', '-')}"]


def machine_of(entry: Mapping[str, Any]) -> str:
    """What an entry's latency was measured on, as a sentence."""
    timed = entry["latency"]
    threads = f"{timed['threads']} thread{'s' if timed['threads'] > 1 else ''}"
    return (f"latency: from uint8 images to probabilities, medians, on the {timed['device']}"
            + (f" with {threads}" if timed["device"] == "CPU" else ""))
