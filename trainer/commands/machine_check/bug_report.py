"""The form that `doctor --bug_report` prints: what somebody needs to understand a fault on another machine."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trainer import __version__
from trainer.config import Config
from trainer.errors import DataError

if TYPE_CHECKING:
    from trainer.storage.model_dir import ModelDir

# Not all of TF_: Terraform's variables begin so, too, and hold passwords.
_PREFIXES = ("XLA_", "CUDA_", "NCCL_", "NVIDIA_", "OMP_", "KERAS_", "LD_LIBRARY_PATH", "SLURM_NTASKS",
             "SLURM_JOB_NUM_NODES", *(f"TF_{name}" for name in (
                 "ADJUST", "AUTOTUNE", "CONFIG", "CPP_", "CUDA", "CUDNN_", "DETERMINISTIC", "DISABLE_", "ENABLE_",
                 "FORCE_", "FP16_", "GPU_", "INTEROP", "INTRAOP", "NEED_", "NUM_", "ONEDNN", "USE_", "XLA_")))
_SECRET = ("TOKEN", "KEY", "SECRET", "PASS", "CREDENTIAL")
_LOG_LINES = 30


def form(lines: Sequence[str], model_dir: ModelDir | None, environ: Mapping[str, str] = os.environ) -> str:
    """The form, in Markdown.

    Args:
        lines: What `doctor` found.
        model_dir: The run that something is wrong with, if there is one.
        environ: The variables, of which those are shown that change how TensorFlow works.

    Returns:
        The text. The home folder is ~ in it, and of a cluster only its size is told. What log.txt names, it names, too.
    """
    parts = ["**What I ran** (the whole command):\n\n**What I expected:**\n\n"
             "**What happened** (the exit code, and all lines from `lockstep:` on):\n",
             _block("doctor", [f"lockstep {__version__}, {platform.platform()}", *lines]),
             _block("variables", _variables(environ))]
    if model_dir:
        parts += [_block("settings that aren't the defaults", _settings(model_dir)),
                  _block("the end of log.txt", _log(model_dir))]
    return _without_home("\n".join(parts), environ)


def _block(title: str, lines: Sequence[str]) -> str:
    text = "\n".join(lines or ["none"]).replace("```", "'''")
    return f"<details><summary>{title}</summary>\n\n```\n{text}\n```\n</details>\n"


def _variables(environ: Mapping[str, str]) -> list[str]:
    shown = []
    for name, value in sorted(environ.items()):
        if name.startswith(_PREFIXES) and not any(word in name for word in _SECRET):
            shown.append(f"{name}={_workers(value) if name == 'TF_CONFIG' else value}")
    return shown


def _workers(text: str) -> str:
    """A TF_CONFIG without the addresses in it."""
    try:
        config = json.loads(text)
        counts = {role: len(addresses) for role, addresses in config.get("cluster", {}).items()}
        return json.dumps({"cluster": counts, "task": config.get("task")})
    except (ValueError, AttributeError, TypeError):
        return "(can't be read)"


def _settings(model_dir: ModelDir) -> list[str]:
    try:
        given = Config.from_mapping(model_dir.read_config()["given"])
    except DataError as error:  # as good to know as what else was found
        return [error.cause]
    defaults = Config()
    return [f"--{field.name}={','.join(value) if isinstance(value, tuple) else value}"
            for field in dataclasses.fields(given)
            if (value := getattr(given, field.name)) != getattr(defaults, field.name)]


def _log(model_dir: ModelDir) -> list[str]:
    try:
        return model_dir.log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
    except OSError as error:
        return [f"it can't be read: {error.strerror}"]


def _without_home(text: str, environ: Mapping[str, str]) -> str:
    home = environ.get("HOME", "")
    return text.replace(home, "~") if len(Path(home).parts) > 1 else text
