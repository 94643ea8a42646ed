"""A run in a real TensorBoard in Chromium: its scalars, drawings and settings are on the page."""

import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
import runs
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

FLAGS = ("--dataset=small_data:few", "--model=small_models:regularized", "--batch_size=64", "--max_steps=60",
         "--eval_every_epochs=1", "--log_every_steps=10", "--num_gpus=0", "--export=none", "--clip_norm=1")


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Of a TensorBoard that shows a run."""
    folder = tmp_path_factory.mktemp("shown")
    runs.finish(runs.start(folder, *FLAGS), 0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-m", "tensorboard.main", f"--logdir={folder / 'run/tensorboard'}",
                               f"--port={port}", "--host=127.0.0.1"], stderr=subprocess.DEVNULL)
    found = f"http://127.0.0.1:{port}"
    while True:  # until it has read the run
        try:
            if b"eval" in urllib.request.urlopen(f"{found}/data/runs").read():
                break
        except OSError:
            assert server.poll() is None
        time.sleep(0.2)
    yield found
    server.terminate()
    server.wait()


@pytest.fixture(scope="module")
def browser():
    """Chromium, driven by its own driver."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    assert program and driver, "make test-browser needs Chromium: apt-get install chromium chromium-driver"
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1400,4000"):
        options.add_argument(word)
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield opened
    opened.quit()


def shown(browser, address, wanted):
    """Opens a page, and waits until what is wanted of its text and its loaded images is there."""
    browser.get(address)

    def is_there(browser):
        images = browser.find_elements(By.CSS_SELECTOR, "img[src*='imageData'], tf-image-loader img")
        loaded = [image for image in images if int(image.get_attribute("naturalWidth") or 0) > 30]
        return wanted(browser.find_element(By.TAG_NAME, "body").text, loaded)

    WebDriverWait(browser, 120).until(is_there)


def test_scalars_stand_in_their_groups(address, browser):
    tags = ("quality/accuracy", "quality/loss", "quality/learning_rate", "health/gradient_norm", "health/weights_norm",
            "speed/images_per_second")

    def wanted(text, images):
        joined = re.sub(r"\s", "", text)  # a tag's group stands in an element of its own
        return all(tag in joined for tag in tags) and "Smoothed" in text

    shown(browser, f"{address}/?tagFilter=accuracy%7Closs%7Crate%7Cnorm%7Cimages_per#timeseries", wanted)
    assert browser.find_elements(By.CSS_SELECTOR, "line-chart"), "they are drawn as lines"


def test_drawings_of_the_last_evaluation_are_pictures(address, browser):
    def wanted(text, images):
        return "confusion" in text and "mistakes" in text and len(images) >= 3

    shown(browser, f"{address}/?tagFilter=quality%2F(confusion%7Creliability%7Cmistakes)#timeseries", wanted)


def test_settings_are_text(address, browser):
    browser.get(f"{address}/#text")

    def wanted(browser):
        return "small_models:regularized" in browser.execute_script(
            "const all = node => [node, ...node.querySelectorAll('*')].map(each => (each.shadowRoot ? "
            "all(each.shadowRoot) : '') + (each.textContent || '')).join(' '); return all(document.body)")

    WebDriverWait(browser, 120).until(wanted)
