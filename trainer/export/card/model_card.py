"""MODEL_CARD.md: what the exports are, how good, of what data and by which recipe, and where that ends.

Its sections follow Mitchell et al. 2019, "Model Cards for Model Reporting" (arXiv:1810.03993); the lines at its top are
those that model hubs read. Nothing in it is of the clock or of this machine's folders, so equal runs have equal cards.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from trainer.config import Config
from trainer.options import shown_value

CARD = "MODEL_CARD.md"
_FEW = 30  # images of a class; with fewer, the interval of its accuracy is up to 35 points wide and more
# What belongs to the recipe beside the settings that make a run another one. No folders, no addresses.
_RECIPE = ("epochs", "max_steps", "max_hours", "patience", "target_accuracy", "eval_every_epochs", "export_checkpoint",
           "calibrate_export")


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """What a card says beside what the manifest says of the exports.

    Args:
        record: What config.json holds: settings, versions, devices and data of the run.
        step: The step of the weights.
        quality: The figures of the weights' predictions, as `figures_of` returns them; None if nothing was measured.
        selected_on: The split whose accuracy decided which weights these are; None if none did.
        initialized_from: The source of the weights that the run began with; None for random ones.
    """

    record: Mapping[str, Any]
    step: int
    quality: Mapping[str, Any] | None = None
    selected_on: str | None = None
    initialized_from: Mapping[str, Any] | None = None

    def write(self, folder: Path, exports: Mapping[str, Mapping[str, Any]], temperature: float | None) -> None:
        """Writes MODEL_CARD.md.

        Args:
            folder: Where it goes.
            exports: Format to its entry in the manifest.
            temperature: What the exported logits were divided by; None for the model's own.
        """
        text = self.text(exports, temperature)
        (folder / CARD).write_text(text, encoding="utf-8", errors="replace")  # names that are no UTF-8

    def text(self, exports: Mapping[str, Mapping[str, Any]], temperature: float | None) -> str:
        """What `write` writes."""
        import jinja2  # a tenth of a second, and only here

        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=False, trim_blocks=True,  # noqa: S701
            lstrip_blocks=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
        environment.filters |= {"plain": plain, "yaml": json.dumps, "percent": _percent, "count": "{:,}".format}
        classes = (self.quality or {}).get("by_class", {})
        faulty = sorted(((name, each) for name, each in classes.items() if each["examples"] and each["recall"] < 1),
                        key=lambda pair: pair[1]["recall"])
        source = PurePath(str((self.initialized_from or {}).get("path", ""))).name
        given, record = self.record["given"], self.record
        text = environment.get_template("card.md").render(
            **{name: record[name] for name in ("given", "data", "versions", "precision", "replicas")},
            **{field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "record"},
            exports=exports, temperature=temperature, worst=faulty[:3], few_images=_FEW, source=source,
            few=[name for name, each in classes.items() if each["examples"] < _FEW],
            command=" ".join(["python -m trainer.main", *recipe_flags(given)]))
        return re.sub(r"\n{3,}", "\n\n", text)


def recipe_flags(given: Mapping[str, Any]) -> list[str]:
    """The flags that make a run: what isn't the default, without folders.

    Args:
        given: The settings, as config.json holds them.
    """
    config, default, flags = Config.from_mapping(given), Config(), []
    for field in dataclasses.fields(Config):
        value = getattr(config, field.name)
        if (field.metadata["another_run"] or field.name in _RECIPE) and value != getattr(default, field.name):
            text = shown_value(PurePath(value).name if field.name == "init_from" else value)
            flags.append(f"--{field.name}" if value is True else f"--{field.name}={text}")
    return flags


def plain(text: str) -> str:
    """Text in a line of Markdown, in which none of its signs means anything.

    Args:
        text: Such as the name of a class, which may hold anything.
    """
    line = "".join(sign if sign.isprintable() or "\ud800" <= sign <= "\udfff" else " " for sign in text)
    return re.sub(r"([\\`*_{}\[\]<>#|&~:])", r"\\\1", line)


def _percent(share: float | None, digits: int = 1) -> str:
    return "–" if share is None else f"{share:.{digits}%}"
