"""A sweep's file: flags with several values each, to one list of words per run.

    --flagfile=configs/quickstart.cfg      an absl flagfile, a flag a line; # begins a comment
    --seed=0 | 1                           several values: the runs are the product of all
    ---                                    each block is a product of its own; what stands before
    --optimizer=sgd                        the first --- is common to all blocks, and a block's own
    --learning_rate=0.1 | 0.03             line goes before a common one of that name
    ---
    --optimizer=adam
"""

import collections
import dataclasses
import hashlib
import itertools
import math
import re
from pathlib import Path

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


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a sweep.

    Args:
        name: Its folder in OUT, made from what varies.
        varied: Flag to value, of the flags that aren't the same in all runs.
        words: The words for `python -m trainer.main`, its --model_dir included.
        config: The `Config` that they make.
    """

    name: str
    varied: dict
    words: tuple
    config: Config

    @property
    def folder(self):
        """Its model_dir, a `Path`."""
        return Path(self.config.model_dir)


def read(path, out, gpus=None):
    """Reads a sweep's file, and checks every run's flags.

    Args:
        path: The file.
        out: The folder that the runs' folders lie in.
        gpus: How many a run has, for those that don't say; None if that doesn't matter.

    Returns:
        A list of `Run`, in the file's order.

    Raises:
        UsageError: with everything that is wrong in any run.
    """
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8-sig")
    except (UnicodeDecodeError, IsADirectoryError, NotADirectoryError, FileNotFoundError) as error:
        raise UsageError(f"{path} can't be read: {getattr(error, 'strerror', None) or 'it is not a text file'}",
                         "name a file of flags, as docs/sweep.md describes it") from None
    planned, problems = plan(text)
    runs, more_problems = check(planned, Path(out), gpus)
    problems += more_problems or ([] if planned or problems else [f"{path} has no flags"])
    if problems:
        raise UsageError(problems, f"correct {path}: a flag a line, --name=value or --name=value | value | value; "
                         "python -m trainer.main --help lists every flag")
    return runs


def plan(text):
    """The runs that a file's text describes, unchecked.

    Args:
        text: What the file holds.

    Returns:
        (runs, each a list of (flag, value, word): `("seed", "1", "--seed=1")`; what is wrong with the lines, in
        lines of its own). Lines that can't be used are left out.

    Raises:
        UsageError: if there are too many runs.
    """
    common, *blocks = _blocks(text)
    problems = []
    for block in (common, *blocks):
        sound = [line for line in block if not problems.extend(found := list(_faults(line))) and not found]
        counts = collections.Counter(line[0][0] for line in sound)
        problems += [f"--{flag} stands {count} times in one block; several values are written --{flag}=… | …"
                     for flag, count in counts.items() if count > 1 and flag != "flagfile"]
        block[:] = sound
    grids = [_joined(common, block) for block in blocks] if blocks else [common] if common else []
    count = sum(math.prod(len(line) for line in grid) for grid in grids)
    if count > _MOST_RUNS:
        raise UsageError(f"a sweep has at most {_MOST_RUNS:,} runs; received {count:,}",
                         "leave out values, or split the file")
    return [list(run) for grid in grids for run in itertools.product(*grid)], problems


def _blocks(text):
    """Lines as lists of alternatives, (flag, value, word) each, in blocks; the first is what is common to all."""
    blocks = [[]]
    for line in map(str.strip, text.splitlines()):
        if re.fullmatch("-{3,}", line):
            blocks.append([])
        elif line and not line.startswith(("#", "//")):
            blocks[-1].append(_alternatives(line))
    return [blocks[0], *(block for block in blocks[1:] if block)]


def _alternatives(line):
    word, has_value, values = line.partition("=")
    flag = word.lstrip("-")
    if not has_value:
        flag, value = _SWITCHES.get(flag, (flag, ""))
        return [(flag, value, line)]
    dashes = "--" if word.startswith("-") else ""
    return [(flag, value.strip(), f"{dashes}{flag}={value.strip()}") for value in values.split("|")]


def _faults(line):
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


def _joined(common, block):
    """A block's lines after the common ones, but for those that it has itself."""
    own = {line[0][0] for line in block} - {"flagfile"}
    return [line for line in common if line[0][0] not in own] + block


def check(planned, out, gpus=None):
    """Names the runs and checks their flags.

    Args:
        planned: As `plan` returns them.
        out: The folder that the runs' folders lie in.
        gpus: As in `read`.

    Returns:
        (list of `Run`, list of what is wrong).
    """
    more = [] if gpus is None else [f"--num_gpus={gpus}"]  # exactly so many: never a silent run on the CPU
    runs, problems, alike = [], collections.defaultdict(list), collections.defaultdict(list)
    for name, varied, words in _named(planned):
        try:
            config = flags.parse(Config, [*more, *words])
        except UsageError as error:
            wrong = error.problems
        else:
            wrong = _refused(config, words, gpus)
            alike[dataclasses.replace(config, model_dir="")].append(name)
            runs.append(Run(name, varied, (*more, *words, f"--model_dir={out / name}"),
                            dataclasses.replace(config, model_dir=str(out / name))))
        for problem in wrong:
            problems[problem].append(name)
    return runs, [*(problem + _where(names, len(planned)) for problem, names in problems.items()),
                  *(f"these would be the same run: {'; '.join(names)}" for names in alike.values() if len(names) > 1)]


def _refused(config, words, gpus):
    """What a run asks for that is the sweep's to decide."""
    refused = []
    # A flagfile may ask for it, too.
    if (config.model_dir != dataclasses.replace(config, model_dir="").model_dir
            or any(word.lstrip("-").startswith("model_dir=") for word in words)):
        refused.append("--model_dir is the sweep's to name: OUT/NAME")
    if config.resume != "auto":
        refused.append(f"--resume={config.resume}: a sweep goes on from whatever it finds")
    if config.strategy == "multi_worker":
        refused.append("--strategy=multi_worker: each run of a sweep is one process")
    if gpus is not None and config.num_gpus > gpus:
        refused.append(f"--num_gpus={config.num_gpus}: a run has {gpus or 'no'} GPU{'s' * (gpus != 1)} here; see "
                       "--gpus_per_run")
    return refused


def _where(names, count):
    """In which runs a problem is, in brackets; nothing if it is in all."""
    if len(names) == count:
        return ""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f" (in {'; '.join(names[:_LISTED])}{more})"


def _named(planned):
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


def _settings(run):
    """Flag to value; of flagfiles, which may be several, all."""
    values = collections.defaultdict(list)
    for flag, value, _ in run:
        values[flag].append(value)
    return {flag: ",".join(several) for flag, several in values.items()}


def _name(varied):
    """What varies, as a file name of letters that no shell and no pattern takes for something else."""
    text = ",".join(f"{flag}={re.sub(r'[^A-Za-z0-9._+-]', '_', value.replace(',', '+'))}"
                    for flag, value in varied.items())
    return text or "run"
