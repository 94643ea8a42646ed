"""A sweep's file: flags with several values each, to one list of arguments per run.

    --flagfile=configs/quickstart.cfg      an absl flagfile, a flag a line; # begins a comment
    --seed=0 | 1                           several values: the runs are the product of all
    ---                                    each block is a product of its own; what stands before
    --optimizer=sgd                        the first --- is common to all blocks, and a block's own
    --learning_rate=0.1 | 0.03             line goes before a common one of that name
    ---
    --optimizer=adam
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from trainer import flags
from trainer.config import Config
from trainer.errors import UsageError

_MOST_RUNS = 1000
_MOST_CHARACTERS = 160  # of a name; file systems take 255 bytes
_LISTED = 3
_FIELDS = {field.name: field.type for field in dataclasses.fields(Config)}
_SWITCHES = {f"{no}{name}": (name, value) for name, kind in _FIELDS.items() if kind is bool
             for no, value in (("", "true"), ("no", "false"))}
_HELP = ("help", "helpfull", "h")


class Setting(NamedTuple):
    """A flag with one value.

    Args:
        flag: The flag's name: "seed".
        value: Its value: "1".
        word: The argument: "--seed=1".
    """

    flag: str
    value: str
    word: str


_Line = list[Setting]  # the alternatives that a line of the file gives for one flag
_Block = list[_Line]


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a sweep.

    Args:
        name: The run's folder in OUT, made from what varies.
        varied: Flag to value, of the flags that aren't the same in all runs.
        words: The arguments of `python -m trainer.main`, with --model_dir.
        config: The settings that the arguments make.
    """

    name: str
    varied: dict[str, str]
    words: tuple[str, ...]
    config: Config

    @property
    def folder(self) -> Path:
        """The run's model_dir."""
        return Path(self.config.model_dir)


def read(path: Path | str, out: Path | str, gpus: int | None = None) -> list[Run]:
    """Reads a sweep's file, and checks every run's flags.

    Args:
        path: The file.
        out: The folder that the runs' folders lie in.
        gpus: How many GPUs a run has if its flags don't say so; None if that doesn't matter.

    Returns:
        The runs, in the file's order.

    Raises:
        UsageError: with everything that is wrong in any run.
    """
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8-sig")
    except (UnicodeDecodeError, IsADirectoryError, NotADirectoryError, FileNotFoundError) as error:
        raise UsageError(f"{path} can't be read: {getattr(error, 'strerror', None) or 'it is not a text file'}",
                         "use a file of flags, as docs/sweep.md describes it") from None
    planned, problems = plan(text)
    runs, more_problems = check(planned, Path(out), gpus)
    problems += more_problems or ([] if planned or problems else [f"{path} has no flags"])
    if problems:
        raise UsageError(problems, f"correct {path}: a flag a line, --name=value or --name=value | value | value; "
                         "python -m trainer.main --help lists every flag")
    return runs


def plan(text: str) -> tuple[list[_Line], list[str]]:
    """The runs that a file's text describes, unchecked.

    Args:
        text: What the file holds.

    Returns:
        (runs, each a list of one `Setting` for each flag; a line for each problem of the file's lines). Lines that
        have a problem are left out of the runs.

    Raises:
        UsageError: if there are too many runs.
    """
    problems: list[str] = []
    common, *blocks = [_without_faults(block, problems) for block in _blocks(text)]
    grids = [_joined(common, block) for block in blocks] if blocks else [common] if common else []
    count = sum(math.prod(len(line) for line in grid) for grid in grids)
    if count > _MOST_RUNS:
        raise UsageError(f"a sweep has at most {_MOST_RUNS:,} runs; received {count:,}",
                         "leave out values, or split the file")
    return [list(run) for grid in grids for run in itertools.product(*grid)], problems


def _without_faults(block: _Block, problems: list[str]) -> _Block:
    """The lines of a block that can be used; adds what is wrong with the others to `problems`."""
    usable = []
    for line in block:
        faults = list(_faults(line))
        problems += faults
        if not faults:
            usable.append(line)
    counts = collections.Counter(line[0].flag for line in usable)
    problems += [f"--{flag} stands {count} times in one block; several values are written --{flag}=… | …"
                 for flag, count in counts.items() if count > 1 and flag != "flagfile"]
    return usable


def _blocks(text: str) -> list[_Block]:
    """The lines in blocks; the first block is what is common to all others."""
    blocks: list[_Block] = [[]]
    for line in map(str.strip, text.splitlines()):
        if re.fullmatch("-{3,}", line):
            blocks.append([])
        elif line and not line.startswith(("#", "//")):
            blocks[-1].append(_alternatives(line))
    return [blocks[0], *(block for block in blocks[1:] if block)]


def _alternatives(line: str) -> _Line:
    word, has_value, values = line.partition("=")
    flag = word.lstrip("-")
    if not has_value:
        flag, value = _SWITCHES.get(flag, (flag, ""))
        return [Setting(flag, value, line)]
    dashes = "--" if word.startswith("-") else ""
    return [Setting(flag, value.strip(), f"{dashes}{flag}={value.strip()}") for value in values.split("|")]


def _faults(line: _Line) -> Iterator[str]:
    """What is wrong with a line."""
    flag, _, word = line[0]
    if not word.startswith("-") or not flag:
        yield f"unexpected argument {word!r}; flags are written --name=value"
    elif flag in _HELP:
        yield f"--{flag} belongs on the command line"
    elif word.lstrip("-") == flag in _FIELDS and flag not in _SWITCHES:
        yield f"--{flag} has no value"  # it would take the next line for one
    elif not all(word.isprintable() for _, _, word in line):
        yield f"--{flag} has characters that can't be printed"
    else:
        counts = collections.Counter(value for _, value, _ in line)
        yield from (f"--{flag} has the value {value} {count} times" for value, count in counts.items() if count > 1)


def _joined(common: _Block, block: _Block) -> _Block:
    """A block's lines after the common lines, without the common lines of flags that the block has itself."""
    own = {line[0].flag for line in block} - {"flagfile"}
    return [line for line in common if line[0].flag not in own] + block


def check(planned: Sequence[_Line], out: Path, gpus: int | None = None) -> tuple[list[Run], list[str]]:
    """Names the runs and checks their flags.

    Args:
        planned: As `plan` returns them.
        out: The folder that the runs' folders lie in.
        gpus: As in `read`.

    Returns:
        (the runs without problems, a line for each problem).
    """
    more = [] if gpus is None else [f"--num_gpus={gpus}"]  # exactly so many: never a silent run on the CPU
    runs: list[Run] = []
    problems: dict[str, list[str]] = collections.defaultdict(list)  # to the names of the runs that have it
    alike: dict[Config, list[str]] = collections.defaultdict(list)
    for name, varied, words in _named(planned):
        try:
            config = flags.parse(Config, [*more, *words])
        except UsageError as error:
            run_problems = error.problems
        else:
            run_problems = _refused(config, words, gpus)
            alike[dataclasses.replace(config, model_dir="")].append(name)
            runs.append(Run(name, varied, (*more, *words, f"--model_dir={out / name}"),
                            dataclasses.replace(config, model_dir=str(out / name))))
        for problem in run_problems:
            problems[problem].append(name)
    return runs, [*(problem + _where(names, len(planned)) for problem, names in problems.items()),
                  *(f"these would be the same run: {'; '.join(names[:8])}; give each value once"
                    for names in alike.values() if len(names) > 1)]


def _refused(config: Config, words: Sequence[str], gpus: int | None) -> list[str]:
    """The settings of a run that the sweep decides: a line for each."""
    refused = []
    # A flagfile may ask for it, too.
    if (config.model_dir != dataclasses.replace(config, model_dir="").model_dir
            or any(word.lstrip("-").startswith("model_dir=") for word in words)):
        refused.append("--model_dir is named by the sweep, OUT/NAME; leave it out")
    if config.resume != "auto":
        refused.append(f"--resume={config.resume}: a sweep goes on from whatever it finds; leave it out")
    if config.strategy == "multi_worker":
        refused.append("--strategy=multi_worker: each run of a sweep is one process; leave it out")
    if gpus is not None and config.num_gpus > gpus:
        refused.append(f"--num_gpus={config.num_gpus}: a run has {gpus or 'no'} GPU{'s' * (gpus != 1)} here; see "
                       "--gpus_per_run")
    return refused


def _where(names: Sequence[str], count: int) -> str:
    """Which of `count` runs have a problem, in brackets; empty if all have it."""
    if len(names) == count:
        return ""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f" (in {'; '.join(names[:_LISTED])}{more})"


def _named(planned: Sequence[_Line]) -> Iterator[tuple[str, dict[str, str], list[str]]]:
    """(name, varied flags, words) of each run."""
    settings = [_settings(run) for run in planned]
    order = list(dict.fromkeys(flag for run in settings for flag in run))
    varying = [flag for flag in order if len({run.get(flag) for run in settings}) > 1]
    varied = [{flag: run[flag] for flag in varying if flag in run} for run in settings]
    names = [_name(values) for values in varied]
    counts = collections.Counter(name.casefold() for name, _ in {(_name(run), repr(run)) for run in varied})
    for name, values, run in zip(names, varied, planned, strict=True):
        if counts[name.casefold()] > 1 or len(name) > _MOST_CHARACTERS:
            name = f"{name[:_MOST_CHARACTERS - 9]}-{hashlib.sha256(repr(values).encode()).hexdigest()[:8]}"
        yield name, values, [word for _, _, word in run]


def _settings(run: Sequence[Setting]) -> dict[str, str]:
    """Flag to value; --flagfile, which may stand several times, to all its values."""
    values: dict[str, list[str]] = collections.defaultdict(list)
    for flag, value, _ in run:
        values[flag].append(value)
    return {flag: ",".join(several) for flag, several in values.items()}


def _name(varied: Mapping[str, str]) -> str:
    """What varies, as a file name of letters that have no meaning in shells and patterns."""
    text = ",".join(f"{flag}={re.sub(r'[^A-Za-z0-9._+-]', '_', value.replace(',', '+'))}"
                    for flag, value in varied.items())
    return text or "run"
