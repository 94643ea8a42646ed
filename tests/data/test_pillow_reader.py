"""Headers of image files, and the images that the slow reader makes of them."""

import io
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import encode, photo, png_header, turned
from PIL import Image

from trainer.data.images.pillow_reader import DEEP, GREY, JPEG, OTHER, PNG, TRANSPARENT_PNG, decode, read_header
from trainer.data.images.tf_decoder import problem_of
from trainer.process import host


def header_of(data):
    return read_header(io.BytesIO(data))


def validate(data):
    """What is wrong with an image, or None."""
    return problem_of(data, header_of(data))


@pytest.mark.parametrize("kind, mode, way", [
    ("JPEG", "RGB", JPEG), ("JPEG", "L", JPEG), ("JPEG", "CMYK", OTHER), ("PNG", "RGB", PNG), ("PNG", "L", PNG),
    ("PNG", "RGBA", TRANSPARENT_PNG), ("PNG", "P", PNG), ("PNG", "1", PNG), ("PNG", "I;16", PNG),
    ("PNG", "LA", TRANSPARENT_PNG), ("WEBP", "RGB", OTHER), ("BMP", "RGB", OTHER), ("BMP", "P", OTHER),
    ("GIF", "P", OTHER), ("TIFF", "RGB", OTHER), ("TIFF", "I;16", OTHER), ("PPM", "L", OTHER), ("TGA", "RGB", OTHER),
    ("JPEG2000", "RGB", OTHER)])
def test_a_header_says_what_an_image_is(kind, mode, way):
    image = Image.fromarray(photo(30, 50))
    deep = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) << 8)
    image = deep if mode == "I;16" else image.convert(mode)
    data = encode(image, kind)
    header = header_of(data)
    assert header[:4] == (way, 50, 30, 1) and header.problem is None
    assert bool(header.traits & GREY) == (mode in ("L", "1", "I;16", "LA"))
    assert bool(header.traits & DEEP) == (mode == "I;16")
    assert validate(data) is None
    assert decode(data).shape == (30, 50, 3)


def test_sixteen_bits_are_scaled_and_not_clipped():
    ramp = np.arange(0, 65536, 256, np.uint16).reshape(16, 16)
    np.testing.assert_array_equal(decode(encode(Image.fromarray(ramp), "PNG"))[..., 0], ramp >> 8)


def test_cmyk_shows_the_colours_that_it_means():
    image = photo(40, 40)
    shown = decode(encode(Image.fromarray(image).convert("CMYK"), "JPEG", quality=97, subsampling=0))
    assert np.abs(shown.astype(int) - image).mean() < 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_shown_upright(orientation):
    image = photo(24, 40)
    data = turned(image, orientation)
    assert header_of(data)[:4] == (JPEG, 40, 24, orientation)
    assert np.abs(decode(data).astype(int) - image).max() < 30


def frames(kind):
    images = [Image.fromarray(photo(16, 16, seed)) for seed in range(3)]
    return encode(images[0], kind, save_all=True, append_images=images[1:])


@pytest.mark.parametrize("data, words", [
    (b"", "it is empty"), (b"GET OUT\n" * 20, "it is not an image"), (b"\xff\xd8\xff\xe0" + b"x" * 100, "damaged"),
    (encode(photo(64, 64), "JPEG")[:-300], "truncated"), (frames("GIF"), "animated \\(3 frames\\)"),
    (frames("PNG"), "animated"), (frames("WEBP"), "animated"), (png_header(20_000, 20_000), "more than|is the most"),
    (png_header(12_000, 9_000), "12,000 × 9,000 pixels")])
def test_what_is_wrong_is_said_without_decoding(data, words, monkeypatch):
    if b"PNG" in data[:8]:
        monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("decoded"))
    assert re.search(words, header_of(data).problem)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "GIF"])
def test_other_kinds_are_known_to_be_truncated_when_all_of_them_is_read(kind):
    data = encode(photo(64, 64), kind)
    assert validate(data) is None and validate(data[:len(data) // 2])


def test_what_a_camera_writes_behind_a_jpeg_does_no_harm():
    assert header_of(encode(photo(8, 8), "JPEG") + b"\0" * 500).problem is None


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "WEBP"]), st.integers(0, 400))
def test_any_bytes_are_an_image_or_have_a_problem(junk, kind, at):
    data = encode(photo(9, 11), kind)
    data = data[:at] + junk + data[at + len(junk):]
    header = header_of(data)
    assert header.problem or (header.width >= 1 and header.height >= 1)
    if not validate(data):
        assert decode(data).shape[2] == 3


def test_a_file_that_is_not_there_is_a_problem(tmp_path):
    assert "can't be read" in read_header(tmp_path / "none.jpg").problem
    assert host.cores() >= 1
