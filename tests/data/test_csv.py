"""Images that CSV files list: the same as in class folders, however the file is written; and what is refused."""

import shutil
import types

import numpy as np
import pytest
from image_files import class_folders, encode, photo

from trainer.commands import doctor
from trainer.config import Config
from trainer.data.dataset import load
from trainer.data.records.prepare import prepare
from trainer.errors import DataError, UsageError


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """40 images in class folders: four of each class."""
    root = tmp_path_factory.mktemp("images")
    class_folders(root, 40)
    return root


@pytest.fixture
def root(images, tmp_path):
    """A copy of them, to write CSV files into."""
    return shutil.copytree(images, tmp_path / "d")


def names_in(root):
    return sorted(str(path.relative_to(root)) for path in root.glob("*/*.png"))


def lines_of(root):
    """file,label of all images."""
    return [f"{name},{name.split('/')[0]}" for name in names_in(root)]


def open_csv(source, **more):
    return load(Config(dataset="csv", data_dir=str(source), model_dir="/none", **more))


def content(data):
    """{split: {(encoded image, class)}}."""
    return {name: {(split.load(example), data.classes[label]) for example, label in enumerate(split.labels)}
            for name, split in data.splits.items()}


def write(root, lines, name="labels.csv", **more):
    (root / name).write_text("\n".join(lines) + "\n", **more)
    return root / name


def test_a_csv_file_and_class_folders_are_the_same_data(images, root, tmp_path):
    """Images, labels, what is held back; in records, too."""
    folders = load(Config(dataset="folder", data_dir=str(images), model_dir="/none"))
    source = write(root, ["file,label", *lines_of(root)])
    listed = open_csv(source)
    assert (listed.classes, listed.image_shape, listed.held_back) == (folders.classes, (32, 32, 3), True)
    assert content(listed) == content(folders) and not listed.warnings
    options = types.SimpleNamespace(validation_fraction=None, resize_shorter=0, shards=1, max_bad_records=0)
    prepare(source, tmp_path / "records", options, is_listed=True)
    records = load(Config(dataset="records", data_dir=str(tmp_path / "records")))
    assert content(records) == content(folders) and records.classes == folders.classes


WAYS = {
    "header": lambda rows: (["file,label", *rows], {}), "no header": lambda rows: (rows, {}),
    "mark": lambda rows: (["file,label", *rows], {"encoding": "utf-8-sig"}),
    "Excel": lambda rows: (["File Name\tClass", *(row.replace(",", "\t") for row in rows)], {"encoding": "utf-16"}),
    "semicolons": lambda rows: (["filename;category", *(row.replace(",", ";") for row in rows)], {}),
    "quotes": lambda rows: (['"path", "label"', *(f'"{row}"'.replace(",", '" , "') for row in rows), "", ""], {}),
    "columns": lambda rows: (["id,label,image,width", *(",".join(("7", *row.split(",")[::-1], "32")) for row in rows)],
                             {}),
    "pandas": lambda rows: ([",image_path,y", *(f"{place},{row}" for place, row in enumerate(rows))], {}),
    "own words": lambda rows: (["picture,kind", *rows], {}),
    "Windows": lambda rows: ([row.replace("/", "\\") for row in rows], {"newline": "\r\n"}),
    "no endings": lambda rows: (["id_code,diagnosis", *(row.replace(".png", "") for row in rows)], {}),
    "again": lambda rows: ([*rows, rows[0], "./" + rows[1]], {})}


@pytest.mark.parametrize("way", WAYS)
def test_however_it_is_written(root, way):
    wanted = open_csv(write(root, lines_of(root)))
    lines, more = WAYS[way](lines_of(root))
    data = open_csv(write(root, lines, **more))
    assert data.fingerprint == wanted.fingerprint
    assert bool(data.warnings) == (way == "again")


@pytest.mark.parametrize("column", ["split", "Set", "is_valid", None])
def test_a_column_of_splits(root, column):
    words = {"is_valid": ("False", "True", "True"), None: ("TRAIN", "VALIDATION", "TEST")}.get(
        column, ("train", "Val", "test"))
    rows = [f"{words[place % 4 % 3]},{row}" for place, row in enumerate(lines_of(root))]
    data = open_csv(write(root, [*([f"{column},file,label"] if column else []), *rows]))
    sizes = {name: split.size for name, split in data.splits.items()}
    assert sizes == ({"train": 20, "validation": 20} if column == "is_valid" else
                     {"train": 20, "validation": 10, "test": 10}) and not data.held_back


def test_a_file_for_each_split_and_images_in_folders_of_their_names(root):
    """As contests publish them: names without folders, a test split without labels, and files that are no lists."""
    for name in ("train_images", "val"):
        (root / name).mkdir()
    rows = {"train": ["id,label"], "val": ["id,label"]}
    for place, name in enumerate(names_in(root)):
        split = "val" if place % 4 == 0 else "train"
        shutil.copy(root / name, root / {"train": "train_images", "val": "val"}[split] / f"{place:02d}.png")
        rows[split].append(f"{place:02d},{name.split('/')[0]}")
    for split in rows:
        write(root, rows[split], f"{split}.csv")
    write(root, ["id", "99"], "sample_submission.csv")
    data = open_csv(root)
    assert (data.train.size, data.validation.size, data.train.name_of(0)[:13]) == (30, 10, "train_images/")
    assert "not used" in data.warnings[0] and "sample_submission.csv" in data.warnings[0]
    (warning,) = open_csv(root / "train.csv").warnings
    assert "val.csv beside train.csv" in warning
    write(root, ["id,width", "00,32"], "test.csv")
    (root / "test.csv").write_text("file\tx\n")
    with pytest.raises(UsageError, match="holds training images back"):
        open_csv(root, validation_fraction=0.2)


@pytest.mark.parametrize("labels, classes", [
    ([f"{number}" for number in range(8, 12)], ("8", "9", "10", "11")),
    (["1.0", "10.0", "2.0", "3.0"], ("1", "2", "3", "10")), (["b", "a", "ä", "1"], ("1", "a", "b", "ä"))])
def test_labels_are_text_or_numbers(root, labels, classes):
    data = open_csv(write(root, ["file,label", *(f"{name},{labels[place % 4]}" for place, name in enumerate(
        names_in(root)))], encoding="utf-8"))
    assert data.classes == classes and np.bincount(data.train.labels).tolist() == [9] * 4


def test_paths_may_be_absolute_or_lead_out_of_the_folder(root):
    wanted = open_csv(write(root, lines_of(root)))
    absolute = open_csv(write(root, [f"{root}/{line}" for line in lines_of(root)]))
    (root / "lists").mkdir()
    outside = open_csv(write(root / "lists", [f"../{line}" for line in lines_of(root)]))
    assert absolute.fingerprint == wanted.fingerprint and content(outside)["train"] | content(outside)["validation"] \
        == content(wanted)["train"] | content(wanted)["validation"]


def test_rows_that_cannot_be_used_are_named_with_their_lines(root, capsys):
    rows = ["file,label,split", *(f"{line},train" for line in lines_of(root))]
    rows[3:3] = ["star/gone.png,star,train", "star/also.png,,train", ",star,train", "http://x.org/1.png,star,train",
                 "star/00005.png,star,third"]
    (root / "star/00015.png").write_bytes(b"")
    said = ["labels.csv, line 4: star/gone.png is not there", "labels.csv, line 5: ", "line 6: it names no file",
            "line 7: http://x.org/1.png is an address", "line 8: its split is 'third'", "star/00015.png: it is empty"]
    source = write(root, rows)
    with pytest.raises(DataError, match=r"6 images or files can't be used|5 images or files can't be used") as caught:
        open_csv(source)
    assert all(words in str(caught.value) for words in said[:5])
    with pytest.raises(DataError) as caught:
        doctor.run(doctor.Options(data=True, dataset="csv", data_dir=str(source)))
    assert all(words in str(caught.value) for words in said)
    data = open_csv(source, max_bad_records=6)
    assert data.bad.count == 6 and data.train.size + data.validation.size == 40


def listing(*lines, name="labels.csv", encoding="utf-8"):
    def make(root):
        return write(root, [*lines, *lines_of(root)], name, encoding=encoding)
    return make


@pytest.mark.parametrize("make, words", [
    (lambda root: root / "none.csv", "cannot read .*none.csv"),
    (lambda root: root, "has no CSV file, and no train.csv"),
    (lambda root: write(root, [""]), "is empty"), (lambda root: write(root, names_in(root)), "has a single column"),
    (lambda root: write(root, ["a,b", "c,d"]), "lists no image to train on|images or files can't be used"),
    (listing("star/00005.png,cat"), "star/00005.png is cat to train on in labels.csv, line 1, and star to train on in "
                                    "labels.csv, line 34"),
    (lambda root: write(root, [*lines_of(root)[:3], "a, b.png,star"]), "line 4: it has 3 columns, the first line 2"),
    (listing("größe,x", encoding="latin-1"), "line 1: it is not UTF-8"),
    (lambda root: write(root, ["file,cat,dog", *(f"{name},0,1" for name in names_in(root))]),
     "known to name the classes: file, cat, dog"),
    (lambda root: write(root, lines_of(root), "test.csv").parent, "has test.csv, and no train.csv"),
    (lambda root: (write(root, lines_of(root), "train.csv"), write(root, lines_of(root), "my_train.csv"), root)[2],
     "two CSV files for the train split: my_train.csv and train.csv"),
    (lambda root: (write(root, lines_of(root), "train.csv"), write(root, lines_of(root)[:4], "val.csv"), root)[2],
     "to train on in train.csv, line 1, and .* to validate on in val.csv, line 1"),
    (lambda root: (write(root, lines_of(root)[:9], "train.csv"), write(root, lines_of(root)[9:], "val.csv")) and root,
     "val.csv in .* has classes that train.csv doesn't have"),
    (lambda root: write(root, [f"{line.split('/')[1]}" for line in lines_of(root)][:1] + ["x.png,y"]) and [
        (root / folder / "x.png").write_bytes(encode(photo(9, 9))) for folder in ("star", "ring")] and write(
            root, ["x.png,y"]), "x.png is in several folders: ring/, star/")])
def test_a_list_that_is_none_is_refused(root, make, words):
    with pytest.raises(DataError, match=words):
        open_csv(make(root))


def test_a_folder_without_class_folders_points_to_csv_files(root):
    source = write(root, lines_of(root))
    with pytest.raises(DataError) as caught:
        load(Config(dataset="folder", data_dir=str(source)))
    assert "--dataset=csv" in caught.value.fix
