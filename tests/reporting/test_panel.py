"""The panel on a terminal: what it says at 80 and 160 columns, and that nothing in it is markup or breaks a line."""

import io

import pytest
from rich.console import Console

from trainer.reporting.panel import TrainingPanel


def shown(width, height=24, best=None, name="runs [red]é", then=lambda panel: None):
    console = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=width, height=height)
    panel = TrainingPanel(console, name, 500, 2000, best, "validation")
    then(panel)
    console.print(panel)
    return console.file.getvalue().splitlines()


def all_of_it(panel):
    panel.progress(1000, "epoch 1.50  loss 0.1234  accuracy 95.1%  8,000 images/s", "1:02:03")
    panel.evaluated(900, 0.9, True)
    panel.evaluated(950, 0.85, False)
    panel.saved(900)
    panel.warned("first")
    panel.warned("[bold]not finite[/bold]\x1b[2J; " + "and so on " * 20)


@pytest.mark.parametrize("width", [80, 160])
def test_every_line_has_the_width_and_says_what_it_is_about(width):
    lines = shown(width, then=all_of_it)
    assert {len(line) for line in lines} == {width} and len(lines) == (7 if width == 80 else 5)
    text = "\n".join(lines)
    for part in ("runs [red]é", "step 1,000/2,000", "50%   1:02:03 left", "loss 0.1234", "8,000 images/s",
                 "accuracy 85.00% at step 950; best accuracy 90.00% at step 900", "step 900, 0 s ago",
                 "2; the last: [bold]not finite[/bold]", "…"):
        assert part in text, part
    assert "\x1b" not in text, "what is warned of moves no cursor"


def test_before_the_first_figures():
    text = "\n".join(shown(80))
    assert "compiling …" in text and "not evaluated yet" in text and "checkpoint" not in text
    assert "best accuracy 50.00% at step 400" in "\n".join(shown(80, best={"step": 400, "accuracy": 0.5}))


def test_a_short_terminal_shows_the_bar_alone():
    (line,) = shown(60, height=8, then=all_of_it)
    assert "step 1,000/2,000" in line and "1:02:03 left" in line
