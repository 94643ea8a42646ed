"""The pages of runs in Chromium: as wide as a phone and as a desk, in light and in dark."""

import html
import shutil
import subprocess

import numpy as np
import pytest
from finished_runs import SENT, page, predictions, write_run
from image_files import class_folders
from PIL import Image

from trainer.__main__ import main

LIGHT, DARK = (251, 251, 250), (20, 24, 30)  # the background in base.html


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Name to the file of each page."""
    folder = tmp_path_factory.mktemp("pages")
    text, _ = page(folder, np.arange(60) % 4 > 0, augment=("flip",))
    (folder / "report.html").write_text(text)
    for name in ("one", SENT.replace("/", "|")):
        write_run(folder / name, predictions(np.arange(60) > len(name)))
    runs = [str(folder / "one"), str(folder / SENT.replace("/", "|"))]
    assert main(["compare", *runs, f"--out={folder / 'compare.html'}"]) == 0
    class_folders(folder / "images/train", 30)
    class_folders(folder / "images/test", 20)  # the first of train's
    assert main(["doctor", "--data", "--dataset=folder", f"--data_dir={folder / 'images'}", "--json",
                 f"--out={folder / 'data.html'}"]) == 0
    return {name: folder / f"{name}.html" for name in ("report", "compare", "data")}


def chromium(folder, *words):
    """Runs Chromium to its end; returns what it printed, and fails if the page met an error."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert program, "make test-browser needs Chromium: apt-get install chromium"
    done = subprocess.run([program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                           "--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}", *map(str, words)],
                          capture_output=True, text=True, timeout=200)
    assert done.returncode == 0 and ":CONSOLE" not in done.stderr, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["report", "compare", "data"])
@pytest.mark.parametrize("width, dark", [(500, True), (1200, False)])
def test_it_is_drawn_within_the_window_in_the_readers_colours(pages, tmp_path, name, width, dark):
    picture = tmp_path / "page.png"
    chromium(tmp_path, f"--window-size={width},3000", f"--blink-settings=preferredColorScheme={0 if dark else 1}",
             f"--screenshot={picture}", pages[name].as_uri())
    with Image.open(picture) as image:
        pixels = np.array(image.convert("RGB"))
    background = np.array(DARK if dark else LIGHT)
    assert pixels.shape[1] == width
    edges = np.concatenate([pixels[:, :4], pixels[:, -4:]], 1).reshape(-1, 3)
    assert (edges == background).all(), "something is wider than the window"
    drawn = (pixels != background).any(2)
    assert drawn[:1000].mean() > 0.02 and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50


def test_what_the_browser_makes_of_it(pages, tmp_path):
    dom = chromium(tmp_path, "--dump-dom", pages["report"].as_uri())
    assert "<script" not in dom and html.escape(SENT, quote=False) in dom
    assert dom.count("<svg") == 3 and dom.count("<h2>") == 9
    assert dom.index("<h2>Curves") < dom.index("<h2>Classes") < dom.index("<h2>Settings")
