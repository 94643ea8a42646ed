"""Settings that are flags: a dataclass field with its help, its bounds and its check."""

from __future__ import annotations

import dataclasses
import math
import re
import shlex
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_BUCKET = "mount the bucket ({}), or copy it here first ({})"
# A URL's scheme to what gives its content a path.
_WAYS = {
    **dict.fromkeys(("gs", "gcs"), _BUCKET.format("gcsfuse", "gcloud storage cp --recursive")),
    **dict.fromkeys(("s3", "s3a", "s3n"), _BUCKET.format("mount-s3", "aws s3 cp --recursive")),
    **dict.fromkeys(("abfs", "abfss", "wasb", "wasbs", "az"), _BUCKET.format("blobfuse2", "azcopy copy --recursive")),
    "hdfs": "copy it here first (hdfs dfs -get), or mount it (hdfs-fuse)",
    **dict.fromkeys(("http", "https", "ftp"), "download it first (curl --remote-name)")}


def names_in(folder: str) -> tuple[str, ...]:
    """The names that the modules of a folder of this package have: what is added there is found by its file's name.

    Args:
        folder: Such as "models/zoo".

    Returns:
        A tuple of names, sorted, without those that begin with an underscore. No module is imported.
    """
    return tuple(sorted(path.stem for path in (Path(__file__).parent / folder).glob("*.py")
                        if not path.stem.startswith("_")))


def option(default: Any, help: str, *, choices: Sequence[str] = (), pattern: tuple[str, str] | None = None,
           least: float = -math.inf, above: float = -math.inf, most: float = math.inf,
           another_run: bool = False, repeats: bool = False, secret: bool = False) -> Any:
    """A field that is a flag.

    Args:
        default: The value when the flag isn't given.
        help: One line for `--help`.
        choices: The values (for a tuple: its members) that are allowed; empty for any.
        pattern: (regular expression, its human-readable form) of further values that are allowed.
        least, above, most: Bounds of a number: inclusive, exclusive, inclusive.
        another_run: Whether a stopped run that went on with another value would be another run.
        repeats: Whether a tuple may name something twice.
        secret: Whether a text may be a URL or a command that holds a password or a key; what is printed and kept of it
            is `without_secrets`.

    Returns:
        A dataclass field.
    """
    return dataclasses.field(default=default, repr=not secret, metadata={
        "help": help, "choices": choices, "pattern": pattern, "least": least, "above": above, "most": most,
        "another_run": another_run, "repeats": repeats, "secret": secret})


@dataclasses.dataclass(frozen=True)
class Checked:
    """A dataclass of `option`s that can tell what is wrong with its values."""

    def problems(self) -> list[str]:
        """All that is wrong with the values.

        Returns:
            A list of lines, each with the rule and what was received; empty when all values are allowed.
        """
        return [problem for field in dataclasses.fields(self)
                if (problem := _problem(field, getattr(self, field.name)))]


def _problem(field: dataclasses.Field[Any], value: Any) -> str | None:
    """What is wrong with the value of a field, or None."""
    rule, name = field.metadata, field.name
    if value is None or rule["secret"]:
        return None
    members = value if isinstance(value, tuple) else (value,)
    if not rule["choices"]:
        for text in members:
            if isinstance(text, str) and (problem := url_problem(name, text)):
                return problem
    if isinstance(value, str) and value.startswith("~") and not rule["choices"]:
        try:
            Path(value).expanduser()
        except RuntimeError:
            return f"--{name} names the home of a user who has none, or does not exist; received {value!r}"
    if len(set(members)) < len(members) and not rule["repeats"]:
        return f"--{name} names something twice; received {','.join(members)}"
    if rule["choices"]:
        expression, pattern_name = rule["pattern"] or ("(?!)", None)
        wrong = [str(member) for member in members
                 if member not in rule["choices"] and not re.fullmatch(expression, str(member))]
        allowed = (*filter(None, rule["choices"]), *([pattern_name] if pattern_name else []))
        if wrong:
            return f"--{name} must be {_either(allowed)}; received {', '.join(map(repr, wrong))}"
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        if not math.isfinite(value):
            return f"--{name} must be a finite number; received {value}"
        if value < rule["least"]:
            return f"--{name} must be at least {rule['least']}; received {value}"
        if value <= rule["above"]:
            return f"--{name} must be above {rule['above']}; received {value}"
        if value > rule["most"]:
            return f"--{name} must be at most {rule['most']}; received {value}"
    return None


def url_problem(name: str, value: str) -> str | None:
    """Refuses a URL: every flag that takes text goes through here, so that none trains into a folder named gs:.

    Args:
        name: The flag's name.
        value: What was received.

    Returns:
        A line with the way out, or None if the value is no URL.
    """
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):(//?)", value)
    scheme = match[1].lower() if match else ""
    if not match or (match[2] == "/" and scheme not in ("file", *_WAYS)):
        return None
    if scheme == "file":
        path = urllib.parse.unquote(re.sub("^//[^/]*", "", value[len("file:"):]))
        way = f"write the path alone: {path}"
    else:
        way = _WAYS.get(scheme, "copy what is there to this machine first, or mount it")
    return f"--{name} takes no URLs, only what this machine has; received {value!r}; {way}"


def without_secrets(text: str) -> str:
    """What may be printed and kept of a URL or a command: https://host/…, a scheme://…, a program and no arguments.

    Args:
        text: A URL, a command, or what this function made of one.

    Returns:
        The text without user, password, path and query; of all schemes but http and https also without the host, which
        is a key in some.
    """
    scheme, is_url, rest = text.partition("://")
    if is_url and re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        if scheme.lower() not in ("http", "https"):
            return f"{scheme}://…"
        return f"{scheme}://{re.split('[/?#]', rest)[0].rpartition('@')[2]}/…"
    program, *arguments = text.split(maxsplit=1) or [""]
    return f"{'…' if '=' in program else program}{' …' if arguments else ''}"


def kept_values(settings: Any) -> dict[str, Any]:
    """Settings as files and pages have them.

    Args:
        settings: An instance of a dataclass of `option`s.

    Returns:
        Name to value, `without_secrets`.
    """
    return {field.name: without_secrets(value) if field.metadata.get("secret") else value
            for field in dataclasses.fields(settings) for value in [getattr(settings, field.name)]}


def shown_value(value: Any) -> str:
    """A setting's value as it is given on the command line."""
    if value is None or value == ():
        return "not given"
    return shlex.quote(",".join(map(str, value)) if isinstance(value, tuple) else str(value))


def _either(choices: Sequence[str]) -> str:
    return choices[0] if len(choices) == 1 else f"{', '.join(choices[:-1])} or {choices[-1]}"
