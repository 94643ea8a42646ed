"""The pages of docs/: the reference is that of the code, commands are ones that exist, links lead somewhere."""

import importlib
import importlib.util
import re
import shlex

import pytest
import yaml
from conftest import ROOT

from trainer import flags
from trainer.__main__ import COMMANDS
from trainer.config import Config

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# In place of a value: what a reader puts in.
PLACEHOLDER = re.compile(r"…|\b[A-Z_]{3,}\b|\b(FLAGS|RUN|FILE|D)\b")


def commands_in(text):
    """(command, words) of each line of code that starts this program, without comments and placeholders."""
    for block in re.findall(r"^```[a-z]*\n(.*?)^```", text, re.S | re.M):
        for line in block.replace("\\\n", " ").splitlines():
            found = re.match(r"(?:lockstep|python -m trainer(\.main)?) (.*)", line.strip())
            if found:
                words = shlex.split(found[2], comments=True)
                command = "train" if found[1] else words.pop(0)
                if not any(PLACEHOLDER.search(word) for word in words):
                    yield command, words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_have_flags_that_exist(page):
    for command, words in commands_in(page.read_text()):
        if command.startswith("--") or command == "completion":
            continue
        assert command in COMMANDS, command
        module = None if command == "train" else importlib.import_module(f"trainer.commands.{command}")
        options = module.Options if module else Config
        flags.parse(options, words, positional=getattr(module, "POSITIONAL", None))  # raises with all that is wrong


def test_there_are_commands_to_look_at():
    assert sum(len(list(commands_in(page.read_text()))) for page in PAGES) > 20


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page):
    for target in re.findall(r"\]\(([^)#\s]*(?:#[^)\s]*)?)\)", page.read_text()):
        name, _, heading = target.partition("#")
        if re.match(r"[a-z]+:", name):
            continue
        path = page.parent / name if name else page
        assert path.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.*)$", path.read_text(), re.M)
            slugs = {re.sub(r"[^a-z0-9 -]", "", title.lower()).strip().replace(" ", "-") for title in titles}
            assert heading in slugs, target


def test_the_reference_of_flags_is_that_of_the_code():
    """After a change of flags: python docs/write_flags.py."""
    spec = importlib.util.spec_from_file_location("write_flags", ROOT / "docs/write_flags.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs/flags.md").read_text() == module.page()


def test_every_page_is_in_the_menu():
    def files(entries):
        for entry in entries:
            for value in entry.values():
                yield from files(value) if isinstance(value, list) else [value]

    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    assert sorted(files(settings["nav"])) == sorted(page.name for page in (ROOT / "docs").glob("*.md"))
