"""report.html: one file that stands alone, whose names are text."""

import html.parser

import numpy as np
import pytest
from finished_runs import SENT, page, predictions
from PIL import Image

from trainer.reporting.page import charts, report
from trainer.reporting.page.confusion_plot import plot_confusion
from trainer.reporting.page.pictures import data_address
from trainer.reporting.page.render import duration, moment

VOID = {"meta", "img", "path", "circle", "rect", "link", "br"}
OPTIONAL = {"tr", "td", "th", "p"}  # HTML lets their ends be left out


class Page(html.parser.HTMLParser):
    """The tags, addresses and texts of a page; fails where a tag ends that didn't begin."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.texts, self._open = [], [], [], []
        self.feed(text)
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href", "srcset")]
        assert not [name for name, _ in attributes if name.startswith("on")], attributes
        if tag not in VOID | OPTIONAL:
            self._open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID | OPTIONAL:
            assert self._open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_the_page_stands_alone_and_names_are_text(tmp_path):
    text, result = page(tmp_path, np.arange(60) % 4 > 0, augment=("flip",))
    found = Page(text)
    words = " ".join(found.texts)
    assert not {"script", "link", "iframe", "object", "b&gt;"} & set(found.tags) and "<script>alert" not in text
    assert words.count(SENT) > 5 and "<b>dog</b>" in words and "bird & co" in words
    assert all(address.startswith("data:image/png;base64,") for address in found.addresses)
    assert found.tags.count("img") == 15 + 4 and found.tags.count("svg") == 3
    for part in ("75.00%", "62.8 – 84.2%", "macro F1", "cat → <b>dog</b>", "export/model.h5", "steps that count",
                 "augment", "flip", "sha256:0", "lockstep", "1,234", "1.23", "12.3", "CPU, 2 threads"):
        assert part in words, part
    low, high = result["quality"]["accuracy_interval"]
    assert (round(low, 3), round(high, 3)) == (0.628, 0.842)


def test_a_model_without_mistakes(tmp_path):
    text, _ = page(tmp_path, np.ones(60, bool))
    words = " ".join(Page(text).texts)
    assert "every image was answered correctly" in words and "Nothing was confused." in words


def test_the_surest_mistakes_come_first():
    said = predictions(np.arange(60) % 2 > 0)
    rows = report.worst_mistakes(said)
    assert len(rows) == 24 and not said.correct[rows].any()
    assert (np.diff(said.confidence[rows]) <= 0).all()
    assert said.confidence[rows[-1]] >= np.sort(said.confidence[~said.correct])[-24]


@pytest.mark.parametrize("classes", [3, 30, 60])
def test_confusion_png(tmp_path, classes):
    names = [f"{SENT} class {number}" for number in range(classes)]
    matrix = np.arange(classes * classes).reshape(classes, classes)
    plot_confusion({"by_class": dict.fromkeys(names), "confusion": matrix.tolist(), "split": "test", "accuracy": 0.5,
                    "examples": 60}, tmp_path / "report/confusion.png")
    with Image.open(tmp_path / "report/confusion.png") as image:
        assert image.format == "PNG" and min(image.size) > 150 and max(image.size) < 1500


@pytest.mark.parametrize("values", [[0.0], [1, 1], [-3, 7], [1e-9, 2e-9], [0.1, 0.9, 0.5], [1e12, 3e12], [-5.0]])
def test_ticks_enclose_the_values(values):
    found = charts.ticks(values)
    assert found == sorted(set(found)) and 2 <= len(found) <= 8
    assert found[0] <= min(values) and max(values) <= found[-1]


def test_a_chart_leaves_out_what_is_no_number():
    chart = charts.line_chart([charts.Line("<x>", [(0, 1.0), (1, float("nan")), (2, 2.0)])], "x", "y")
    assert "nan" not in chart and chart.count("<circle") == 2 and "&lt;x&gt;" in chart
    assert "nothing to draw" in charts.line_chart([charts.Line("x", [(0, float("inf"))])], "x", "y")


@pytest.mark.parametrize("shape", [(8, 8, 1), (8, 9, 3), (500, 300, 3), (8, 8, 7)])
def test_images_of_any_shape_are_shown(shape):
    assert data_address(np.zeros(shape, np.uint8)).startswith("data:image/png;base64,")


def test_words_of_times():
    assert (duration(4.25), duration(185), duration(7800), duration(None)) == ("4.2 s", "3 min 05 s", "2 h 10 min",
                                                                                 "not measured")
    assert moment(0) == "1970-01-01 00:00:00 UTC" and moment(1e30) == "–"
