"""`compare`: runs side by side, with intervals and a paired test on the same examples. Needs no TensorFlow."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from trainer.options import Checked, option
from trainer.process.exit import printable, say
from trainer.storage.durable import write_durably

POSITIONAL = "runs"


@dataclasses.dataclass(frozen=True)
class Options(Checked):
    """python -m trainer compare RUN RUN…: settings that differ, accuracy, speed, and whether it could be chance."""

    runs: tuple[str, ...] = option((), "folders of runs, two or more")
    out: str = option("", "file for a page with the same, and the curves")
    json: bool = option(False, "print a JSON object")

    def problems(self) -> list[str]:
        """All that is wrong with the values, as `Checked.problems` describes it."""
        return super().problems() + ([] if len(self.runs) > 1 else [
            f"compare needs two runs or more; received {len(self.runs)}"])


def run(options: Options) -> None:
    """Prints the comparison, and writes its page.

    Raises:
        DataError: if a folder is not a run directory.
    """
    from trainer.reporting.comparison import ComparedRun, compare

    runs = [ComparedRun.read(path) for path in options.runs]
    comparison = compare(runs)
    if options.out:
        from trainer.reporting.page.compare import comparison_page

        write_durably(options.out, comparison_page(comparison, runs))
    if options.json:
        say(json.dumps(comparison))
    else:
        _show(comparison)
        if options.out:
            say(f"written: {options.out}")


def _show(comparison: Mapping[str, Any]) -> None:
    """Prints the tables; names and settings are text, not rich's markup."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from trainer.reporting.page.compare import figure_rows, pair_sentence, setting_rows

    console, names = Console(highlight=False), [each["run"] for each in comparison["runs"]]
    for title, rows in (("figures", figure_rows(comparison)), ("settings that differ", setting_rows(comparison))):
        table = Table(title)
        for name in names:
            table.add_column(Text(printable(name)))
        for cells in rows:
            table.add_row(*(Text(printable(cell)) for cell in cells))
        if table.rows:
            console.print(table)
    for each in comparison["runs"]:
        if each["note"]:
            say(f"{each['run']}: {each['note']}")
    for pair in comparison["pairs"]:
        say(pair_sentence(pair))
