"""One way from bytes to pixels: every reader decides the same of each odd file, and sees the same pixels."""

import io
import json
import re
import struct
import types
import zlib

import numpy as np
import pytest
import tensorflow as tf
from cases import long
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import batches, encode, photo, png_header, turned
from PIL import Image, PngImagePlugin

from trainer.commands import doctor
from trainer.commands.data_check import check
from trainer.commands.prediction.answers import open_files
from trainer.config import Config
from trainer.data.bad_examples import BadExamples
from trainer.data.dataset import load
from trainer.data.images import pillow_reader, tf_decoder
from trainer.data.images.crops import View
from trainer.data.images.orientation import orientation
from trainer.data.images.stored_size import stored_size
from trainer.data.records.prepare import prepare
from trainer.export.served_files import FileDecoder

IMAGE = photo(90, 130)
COLOURS = Image.fromarray(IMAGE)
GREY = COLOURS.convert("L")
ALPHA = np.linspace(0, 255, 130).astype(np.uint8)[None].repeat(90, 0)
DEEP = Image.fromarray((np.asarray(GREY).astype(np.uint16) << 8) + 77)


def xmp(number):
    return f'<x:xmpmeta><rdf:Description tiff:Orientation="{number}"/></x:xmpmeta>'.encode()


def png_with_xmp(image, number, zipped=False):
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", xmp(number).decode(), zip=zipped)
    return encode(image, pnginfo=info)


def with_exif(image, kind, number):
    exif = Image.Exif()
    exif[274] = number
    return encode(image, kind, exif=exif)


def with_alpha(image):
    image = image.copy()
    image.putalpha(Image.fromarray(ALPHA))
    return image


def flipped(data, mark, behind):
    """The data with one bit of a byte behind a mark changed."""
    place = data.index(mark) + len(mark) + behind
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1:]


def crc_of_first_idat(data):
    place = data.index(b"IDAT")
    return int.from_bytes(data[place - 4:place], "big")


def stripes(side):
    rows = np.zeros((side, side, 3), np.uint8)
    rows[:, ::4] = rows[:, 1::4] = 255
    return rows


_png = encode(IMAGE)
# Every file is read; those that the served model refuses end with a kind that it doesn't take.
SERVED = {
    "plain.jpg": encode(IMAGE, "JPEG"), "grey.jpg": encode(GREY, "JPEG"), "plain.jfif": encode(IMAGE, "JPEG"),
    "progressive.jpg": encode(IMAGE, "JPEG", progressive=True), "small.jpg": encode(photo(9, 7), "JPEG"),
    "large.jpg": encode(photo(1200, 900), "JPEG"), "long.jpg": encode(photo(60, 600), "JPEG"),
    "stripes.jpg": encode(stripes(1600), "JPEG", quality=95), "stripes.png": encode(stripes(800)),
    **{f"exif {number}.jpg": turned(photo(300, 420), number) for number in range(1, 9)},
    **{f"exif {number}.png": with_exif(COLOURS, "PNG", number) for number in (3, 6, 8)},
    **{f"xmp {number}.jpg": encode(photo(200, 300), "JPEG", xmp=xmp(number)) for number in (1, 3, 5, 6)},
    "xmp 6.png": png_with_xmp(COLOURS, 6), "xmp 8 zipped.png": png_with_xmp(COLOURS, 8, True),
    "plain.png": _png, "grey.png": encode(GREY), "palette.png": encode(COLOURS.quantize(40)),
    "two colours.png": encode(COLOURS.quantize(2), bits=1), "bits.png": encode(GREY.convert("1")),
    "deep.png": encode(DEEP), "rgba.png": encode(with_alpha(COLOURS)), "la.png": encode(with_alpha(GREY)),
    "transparent palette.png": encode(COLOURS.quantize(40), transparency=3),
    "transparent palette 2.png": encode(COLOURS.quantize(40), transparency=bytes(range(0, 240, 6))),
    "transparent colour.png": encode(IMAGE, transparency=tuple(map(int, IMAGE[4, 4]))),
    "transparent grey.png": encode(GREY, transparency=int(np.asarray(GREY)[3, 3])),
    "plain.bmp": encode(IMAGE, "BMP"), "x.bmp": encode(with_alpha(COLOURS), "BMP"),
    "plain.gif": encode(COLOURS.quantize(90), "GIF"),
    "comment.gif": encode(COLOURS.quantize(9), "GIF", comment=b"!" * 700)}
REFUSED_BY_SERVING = {
    "cmyk.jpg": encode(COLOURS.convert("CMYK"), "JPEG"), "palette.bmp": encode(COLOURS.quantize(40), "BMP"),
    "transparent.gif": encode(COLOURS.quantize(40), "GIF", transparency=4), "plain.webp": encode(IMAGE, "WEBP"),
    "rgba.webp": encode(with_alpha(COLOURS), "WEBP", lossless=True), "exif 6.webp": with_exif(COLOURS, "WEBP", 6),
    "plain.tif": encode(IMAGE, "TIFF"), "deep.tiff": encode(DEEP, "TIFF"), "exif 8.tif": with_exif(COLOURS, "TIFF", 8),
    "jpeg.tif": encode(IMAGE, "TIFF", compression="jpeg"), "cmyk.tif": encode(COLOURS.convert("CMYK"), "TIFF"),
    "plain.ppm": encode(IMAGE, "PPM"), "plain.tga": encode(IMAGE, "TGA"), "plain.jp2": encode(IMAGE, "JPEG2000"),
    "plain.pcx": encode(IMAGE, "PCX"), "plain.dds": encode(IMAGE, "DDS"),
    "rgba.tga": encode(with_alpha(COLOURS), "TGA")}
READ = {**SERVED, **REFUSED_BY_SERVING}
BROKEN = {
    "checksum.png": flipped(_png, b"IDAT", crc_of_first_idat(_png)), "half.png": _png[:len(_png) // 2],
    "half.jpg": encode(IMAGE, "JPEG")[:-200], "empty.png": b"", "text.jpg": b"no image at all",
    "moves.gif": encode(COLOURS.quantize(9), "GIF", save_all=True, append_images=[GREY.quantize(9)]),
    "pages.tif": encode(COLOURS, "TIFF", save_all=True, append_images=[COLOURS]),
    "fractions.tif": encode(Image.fromarray(np.asarray(GREY).astype(np.float32)), "TIFF"),
    "huge.png": png_header(30_000, 30_000)}
VIEWS = [(32, "crop"), long(72, "crop"), (72, "squeeze"), (72, "pad")]


def write(root, files):
    for index, (name, data) in enumerate(files.items()):
        path = root / "train" / "ab"[index % 2] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    for label in "ab":  # something to evaluate on
        (root / "test" / label).mkdir(parents=True)
        (root / "test" / label / "1.png").write_bytes(_png)


def open_data(root, dataset, **more):
    return load(Config(dataset=dataset, data_dir=str(root), model_dir="/none", **more))


def pixels_in_evaluation(split):
    """{name of the file: pixels} of what can be read."""
    return {split.name_of(example).rpartition("/")[2]: image for examples, images, _ in split.identified_chunks(16)
            for example, image in zip(examples.tolist(), images, strict=True)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("odd")
    write(root, {**READ, **BROKEN})
    return root


@pytest.mark.parametrize("size, resize", VIEWS)
def test_evaluation_and_serving_see_the_same(folder, size, resize):
    data = open_data(folder, "folder", image_size=size, resize=resize, max_bad_records=99)
    seen = pixels_in_evaluation(data.train)
    assert seen.keys() == READ.keys()
    serving = tf.function(FileDecoder(View(size, size, 3, resize)).decode)
    for name, content in SERVED.items():
        np.testing.assert_array_equal(serving(tf.constant(content)).numpy(), seen[name], err_msg=name)


@pytest.mark.parametrize("resize", ["crop", long("pad")])
def test_training_sees_what_evaluation_sees(folder, resize):
    data = open_data(folder, "folder", image_size=72, resize=resize, max_bad_records=99)
    seen = pixels_in_evaluation(data.train)
    trained = {data.train.name_of(example).rpartition("/")[2]: image for step in batches(data, batch_size=7)
               for example, image, weight in zip(step[0], step[2], step[4], strict=True) if weight}
    assert trained.keys() <= seen.keys() and len(trained) > 30
    for name, image in trained.items():
        np.testing.assert_array_equal(image, seen[name], err_msg=name)


def test_every_reader_decides_the_same(folder, tmp_path):
    """What `doctor` names is what training can't read, and what `prepare` leaves out."""
    data = open_data(folder, "folder", image_size=72, max_bad_records=99)
    names = [data.train.name_of(example) for example in range(data.train.size)]
    doctor = {name.rpartition("/")[2] for example, name in enumerate(names) if data.train.problem_of(example)}
    unread = READ.keys() | BROKEN.keys() - pixels_in_evaluation(data.train).keys()
    prepare(folder, tmp_path, types.SimpleNamespace(validation_fraction=None, resize_shorter=0, shards=1,
                                                    max_bad_records=99))
    left_out = {line.split(":")[0].rpartition("/")[2] for line in
                json.loads((tmp_path / "dataset.json").read_text())["left_out"]}
    assert doctor == unread - READ.keys() == left_out == BROKEN.keys()


@pytest.mark.parametrize("name", REFUSED_BY_SERVING)
def test_serving_refuses_what_it_would_see_otherwise(name):
    with pytest.raises(tf.errors.InvalidArgumentError, match="files that are read: JPEG"):
        FileDecoder(View(72, 72, 3, "crop")).decode(tf.constant(REFUSED_BY_SERVING[name]))


@pytest.mark.parametrize("name", sorted(set(BROKEN) - {"huge.png", "fractions.tif", "pages.tif"}))
def test_serving_refuses_what_is_broken(name):
    with pytest.raises(tf.errors.OpError):
        FileDecoder(View(72, 72, 3, "crop")).decode(tf.constant(BROKEN[name]))


def test_records_hold_what_the_files_show(folder, tmp_path):
    prepare(folder, tmp_path, types.SimpleNamespace(validation_fraction=None, resize_shorter=0, shards=1,
                                                    max_bad_records=99))
    records = open_data(tmp_path, "records", image_size=72).train
    seen = pixels_in_evaluation(open_data(folder, "folder", image_size=72, max_bad_records=99).train)
    path = str(tmp_path / "train-00000-of-00001")
    names = [tf.train.Example.FromString(record).features.feature["image/filename"].bytes_list.value[0].decode()
             for record in tf.data.TFRecordDataset(path).as_numpy_iterator()]
    of_records = {names[example].rpartition("/")[2]: image for examples, images, _ in records.identified_chunks(9)
                  for example, image in zip(examples.tolist(), images, strict=True)}
    assert of_records.keys() == seen.keys()
    for name, image in of_records.items():
        difference = np.abs(image.astype(int) - seen[name]).mean()
        assert difference < 8, name  # a JPEG that was turned or converted is encoded again


def test_transparent_images_lie_on_white(tmp_path):
    icon = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    icon.paste((0, 0, 0, 255), (16, 16, 48, 48))
    write(tmp_path, {"a.png": encode(icon), "b.png": encode(icon), "c.webp": encode(icon, "WEBP", lossless=True)})
    for name, image in pixels_in_evaluation(open_data(tmp_path, "folder", image_size=64).train).items():
        assert (image[:16] == 255).all() and not image[20:44, 20:44].any(), name


def test_an_image_is_what_it_is_whatever_lies_beside_it(tmp_path):
    """One of 2,400 pixels with stripes of two pixels, among small ones and alone."""
    files = {"stripes.jpg": encode(stripes(2400), "JPEG"), "other.jpg": encode(stripes(2400), "JPEG")}
    small = {f"{number}.jpg": encode(photo(300, 300, number), "JPEG") for number in range(8)}
    write(tmp_path / "alone", files)
    write(tmp_path / "beside", {**files, **small})
    alone, beside = (pixels_in_evaluation(open_data(tmp_path / name, "folder", image_size=224).train)["stripes.jpg"]
                     for name in ("alone", "beside"))
    np.testing.assert_array_equal(alone, beside)
    assert alone.std() < 3


@pytest.mark.parametrize("kind, mode", [("PNG", "L"), ("PNG", "1"), ("PNG", "I;16"), ("PNG", "LA"), ("JPEG", "L"),
                                        ("TIFF", "I;16"), ("BMP", "L")])
def test_grey_images_have_one_channel(tmp_path, kind, mode):
    image = {"I;16": DEEP, "LA": with_alpha(GREY)}.get(mode) or GREY.convert(mode)
    ending = {"JPEG": "jpg", "TIFF": "tif"}.get(kind, kind.lower())
    files = {f"{number}.{ending}": encode(image, kind) for number in range(4)}
    write(tmp_path / "d", files)
    for label in "ab":
        (tmp_path / "d/test" / label / "1.png").write_bytes(encode(GREY))
    data = open_data(tmp_path / "d", "folder", image_size=72)
    assert data.image_shape == (72, 72, 1)
    seen = pixels_in_evaluation(data.train)
    if kind != "TIFF" and (kind, mode) != ("BMP", "L"):
        served = FileDecoder(View(72, 72, 1, "crop")).decode(tf.constant(files[f"0.{ending}"]))
        np.testing.assert_array_equal(served.numpy(), seen[f"0.{ending}"])
    prepare(tmp_path / "d", tmp_path / "r", types.SimpleNamespace(validation_fraction=None, resize_shorter=0, shards=1,
                                                                  max_bad_records=0))
    records = open_data(tmp_path / "r", "records", image_size=72)
    assert records.image_shape == (72, 72, 1)
    for _, images, _ in records.train.identified_chunks(9):
        np.testing.assert_array_equal(images, np.stack([seen[f"0.{ending}"]] * len(images)))


def test_one_image_in_colours_gives_all_three_channels(tmp_path):
    write(tmp_path, {"1.png": encode(GREY), "2.png": encode(GREY), "3.png": encode(COLOURS)})
    assert open_data(tmp_path, "folder", image_size=72).image_shape == (72, 72, 3)


def test_colours_are_shown_to_a_grey_model_as_bright_as_they_are(folder):
    """A model of grey images answers for images in colours, too: the same in `predict` and in serving."""
    serving = tf.function(FileDecoder(View(72, 72, 1, "crop")).decode)
    data = open_data(folder, "folder", image_size=72, max_bad_records=99)
    colours = pixels_in_evaluation(data.train)
    for name in ("plain.png", "plain.jpg", "rgba.png", "plain.bmp", "grey.jpg"):
        wanted = np.asarray(Image.fromarray(colours[name]).convert("L"))
        np.testing.assert_allclose(serving(tf.constant(SERVED[name])).numpy()[..., 0].astype(int), wanted, atol=1)


def test_predict_shows_a_grey_model_what_serving_shows_it(tmp_path):
    """Files in colours, of every kind, before a model that was trained on grey ones."""
    names = ["plain.png", "plain.jpg", "rgba.png", "la.png", "plain.bmp", "palette.png", "grey.jpg", "exif 6.jpg"]
    for name in names:
        (tmp_path / name).write_bytes(SERVED[name])
    paths = [str(tmp_path / name) for name in names]
    bad = BadExamples(len(paths))
    split = open_files(paths, [pillow_reader.read_header(path) for path in paths], View(72, 72, 1, "crop"), bad)
    serving = tf.function(FileDecoder(View(72, 72, 1, "crop")).decode)
    for examples, images, _ in split.identified_chunks(3):
        for example, image in zip(examples.tolist(), images, strict=True):
            wanted = serving(tf.constant(SERVED[names[example]])).numpy()
            np.testing.assert_array_equal(image, wanted, err_msg=names[example])
    assert not bad.count


@pytest.mark.parametrize("files, size, version", [
    ({"1.jpg": encode(photo(300, 300), "JPEG"), "2.png": _png, "3.bmp": encode(IMAGE, "BMP"),
      "4.png": encode(COLOURS.quantize(9)), "5.jpg": turned(photo(90, 60), 6)}, 224, 1),
    ({"1.jpg": encode(photo(300, 300), "JPEG"), "2.jpg": encode(photo(300, 200), "JPEG")}, 72, 1),
    ({"1.jpg": encode(photo(100, 90), "JPEG"), "2.jpg": encode(photo(99, 90), "JPEG"),
      "3.jpg": encode(photo(300, 200), "JPEG")}, 72, 2),
    ({"1.png": _png, "2.png": encode(with_alpha(COLOURS))}, 72, 2),
    ({"1.png": _png, "2.png": encode(IMAGE, transparency=(1, 2, 3))}, 72, 2),
    ({"1.png": _png, "2.jpg": encode(IMAGE, "JPEG", xmp=xmp(6))}, 72, 2)])
def test_an_older_run_goes_on_only_where_nothing_is_seen_otherwise(tmp_path, files, size, version):
    write(tmp_path, files)
    assert open_data(tmp_path, "folder", image_size=size).versions["pixels"] == version


def test_grey_images_are_another_run(tmp_path):
    write(tmp_path, {"1.png": encode(GREY), "2.png": encode(GREY)})
    for label in "ab":
        (tmp_path / "test" / label / "1.png").write_bytes(encode(GREY))
    assert open_data(tmp_path, "folder", image_size=72).versions["pixels"] == 2


@pytest.mark.parametrize("most, factor", [(4095, 16), (65535, None)])
def test_doctor_tells_of_sixteen_bits_that_end_early(tmp_path, capsys, most, factor):
    values = np.linspace(0, most, 64 * 64).astype(np.uint16).reshape(64, 64)
    write(tmp_path, {"1.png": encode(Image.fromarray(values)), "2.tif": encode(Image.fromarray(values), "TIFF")})
    doctor.run(doctor.Options(data=True, dataset="folder", data_dir=str(tmp_path)))
    said = f"values up to {most:,} of 65,535, so the model sees them as nearly black: multiply them by {factor}"
    assert (said in capsys.readouterr().out) == bool(factor)


_RAMP = np.linspace(0, 1, 64 * 64).reshape(64, 64)


def sixteen_bits_of_colours(most):
    """A PNG of 16 bits a channel, which Pillow can't write."""
    rows = np.repeat((_RAMP * most).astype(">u2")[..., None], 3, -1)
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    chunks = [b"IHDR" + struct.pack(">IIBBBBB", 64, 64, 16, 2, 0, 0, 0), b"IDAT" + zlib.compress(lines), b"IEND"]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks)


@pytest.mark.parametrize("make, most", [
    (lambda: encode((_RAMP * 1.5).astype(np.uint8)), 1), (lambda: encode((_RAMP * 20).astype(np.uint8)), 20),
    (lambda: sixteen_bits_of_colours(4095), 15), (lambda: encode(Image.fromarray(_RAMP > 0.5)), None),
    (lambda: sixteen_bits_of_colours(65535), None), (lambda: encode(COLOURS.quantize(2)), None),
    (lambda: encode(COLOURS.convert("CMYK"), "TIFF"), None), (lambda: encode((_RAMP * 64).astype(np.uint8)), None)])
def test_doctor_tells_of_images_without_a_bright_pixel(tmp_path, capsys, monkeypatch, make, most):
    """Class numbers as grey, 12 bits in 16 of each colour; not of what is only of few colours."""
    monkeypatch.setattr(check, "say_reading_speed", lambda split: None)
    content = make()
    write(tmp_path, {f"{number}.{'tif' if content[:2] in (b'II', b'MM') else 'png'}": content for number in range(2)})
    doctor.run(doctor.Options(data=True, dataset="folder", data_dir=str(tmp_path)))
    out = capsys.readouterr().out
    assert ("nearly black" in out) == bool(most)
    assert most is None or f"values up to {most} of 255" in out and f"multiply them by {255 // most} before" in out
    assert "nothing but one colour" not in out


def test_doctor_names_images_that_show_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(check, "say_reading_speed", lambda split: None)
    write(tmp_path, {"plain.png": encode(np.full((9, 9, 3), 200, np.uint8)), "2.png": encode(photo(9, 9)),
                     "3.png": encode(photo(9, 9, 3))})
    doctor.run(doctor.Options(data=True, dataset="folder", data_dir=str(tmp_path)))
    assert re.search(r"\d of \d images show nothing but one colour: .*plain.png", capsys.readouterr().out)


@pytest.mark.parametrize("resize, corners", [("crop", 0), ("squeeze", 255), ("pad", 255)])
def test_how_an_image_becomes_a_square(tmp_path, resize, corners):
    """Of 400 × 100 pixels, white at its left edge alone."""
    image = np.zeros((100, 400, 3), np.uint8)
    image[:, :40] = 255
    write(tmp_path, {f"{number}.{kind}": encode(image, {"jpg": "JPEG"}.get(kind, kind))
                     for number in range(2) for kind in ("png", "jpg", "bmp")})
    data = open_data(tmp_path, "folder", image_size=72, resize=resize)
    for name, seen in pixels_in_evaluation(data.train).items():
        assert abs(int(seen[36, 2, 0]) - corners) < 9, name
        assert resize != "pad" or (not seen[:20].any() and not seen[-20:].any())
    assert ("of the middle of the images: 19% of their area" in data.sentence()) == (resize == "crop")


@pytest.mark.parametrize("resize", ["crop", "squeeze", "pad"])
def test_random_parts_follow_from_seed_epoch_and_example(tmp_path, resize):
    write(tmp_path, {f"{number}.jpg": encode(photo(90 + 9 * number, 120, number), "JPEG") for number in range(16)})
    one, two = (batches(open_data(tmp_path, "folder", image_size=72, resize=resize, augment=("crop",)), replicas, 8)
                for replicas in (1, 2))
    for step, other in zip(one, two, strict=True):
        np.testing.assert_array_equal(step[2], other[2])


@pytest.mark.parametrize("name", [
    "exif 6.jpg", "xmp 6.png", *(long(name) for name in ("exif 8.png", "xmp 5.jpg"))])
def test_metadata_of_any_bytes_turn_an_image_alike(name):
    """Damaged EXIF and XMP mean the same to the reader of headers and to the served model, or the file is refused."""
    content, rng, compared = SERVED[name], np.random.default_rng(0), 0
    decode = tf.function(FileDecoder(View(32, 32, 3, "crop")).decode)
    (begin,) = [content.index(mark) for mark in (b"Exif", b"MM\0*", b"tiff:") if mark in content][-1:]
    for _ in range(60):
        damaged = bytearray(content)
        for place in begin + rng.integers(0, 26, rng.integers(1, 4)):
            damaged[place] = rng.integers(256)
        data = with_checksums(bytes(damaged)) if name.endswith("png") else bytes(damaged)
        header = pillow_reader.read_header(io.BytesIO(data))
        if tf_decoder.problem_of(data, header):
            continue
        wanted = tf_decoder.whole(data, header)
        box = [(np.array(wanted.shape[:2]) - min(wanted.shape[:2])) // 2, min(wanted.shape[:2])]
        top, left = box[0]
        wanted = wanted[top:top + box[1], left:left + box[1]]
        shown = tf.image.resize(wanted, [32, 32], antialias=True).numpy()
        assert np.abs(decode(tf.constant(data)).numpy() - shown).mean() < 12, header
        compared += 1
    assert compared > 20


def with_checksums(data):
    """A PNG whose chunks have the checksums that they must have."""
    parts, place = [data[:8]], 8
    while place < len(data):
        length = int.from_bytes(data[place:place + 4], "big")
        content = data[place + 4:place + 8 + length]
        parts += [data[place:place + 4], content, zlib.crc32(content).to_bytes(4, "big")]
        place += 12 + length
    return b"".join(parts)


@pytest.mark.parametrize("name", [name for name in READ if name.endswith(("jpg", "jfif", "png"))])
def test_the_stored_size_is_found_in_the_first_bytes(name):
    with Image.open(io.BytesIO(READ[name])) as image:
        assert stored_size(READ[name]) == image.size


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.sampled_from(["plain.jpg", "plain.png"]), st.integers(0, 60))
def test_the_stored_size_of_any_bytes_is_a_size_or_unknown(junk, name, at):
    size = stored_size(SERVED[name][:at] + junk)
    assert size is None or len(size) == 2


@pytest.mark.filterwarnings("ignore:Image size")
def test_what_an_index_hides_is_not_decoded_by_pillow():
    with pytest.raises(ValueError, match="100,000,000 is the most"):
        pillow_reader.decode(encode(Image.new("1", (20_000, 6_000)), "TIFF", compression="group4"))


@pytest.mark.parametrize("exif, said", [
    (b"", 1), (b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0", 6),
    (b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x08\0\0", 8),
    (b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x04\0\x01\0\0\0\x03\0\0\0", 3),
    (b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x09\0\0\0", 1), (b"II*\0\xff\xff\xff\xff", 1),
    (b"II*\0\x08\0\0\0\xff\xff", 1)])
def test_what_exif_says(exif, said):
    assert orientation(exif, b"") == said
    assert orientation(exif, xmp(5)) == (said if said > 1 else 5)
