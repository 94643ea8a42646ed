"""The whole way of the quickstart, and the commands on what it leaves."""

import csv
import io
import json

import numpy as np
import pytest
from conftest import ROOT, run_module
from PIL import Image

from trainer.data.sources import shapes


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    """What `make run` starts, for one of its epochs, in a folder of its own: (folder, how it ended)."""
    return quickstart_in(tmp_path_factory.mktemp("quickstart"), "--epochs=1")


def quickstart_in(folder, *more):
    return folder, run_module(folder, "trainer.main", f"--flagfile={ROOT}/configs/quickstart.cfg", "--model_dir=run",
                              *more, fresh=True, timeout=900)


@pytest.fixture
def command(quickstart):
    """Runs `python -m trainer WORDS… --model_dir=RUN` to its end."""
    def run_command(*words):
        return run_module(quickstart[0], "trainer", *words, "--model_dir=run")

    return run_command


def result(quickstart):
    return json.loads((quickstart[0] / "run/result.json").read_text())


@pytest.mark.long
def test_the_quickstart_passes_95_percent(tmp_path):
    whole = quickstart_in(tmp_path)
    assert whole[1].code == 0, whole[1].out + whole[1].err
    assert result(whole)["eval_accuracy"] > 0.95


def test_the_quickstart_says_where_all_of_it_is(quickstart):
    _, done = quickstart
    assert done.code == 0, done.out + done.err
    assert result(quickstart)["eval_accuracy"] > 0.2
    assert not done.err
    for part in ("test accuracy ", "model.h5", "model.keras", "saved_model/1", "curves.png",
                 "tensorboard --logdir=run/tensorboard", "global batch 64; 12,000 examples"):
        assert part in done.out


def test_every_export_has_the_accuracy_of_the_run(quickstart):
    measured = result(quickstart)
    assert set(measured["exports"]) == {"h5", "keras", "saved_model"}
    for entry in measured["exports"].values():
        assert entry["accuracy"] == measured["eval_accuracy"] and entry["examples"] == 2000
        assert (quickstart[0] / "run" / entry["path"]).exists()


@pytest.mark.parametrize("devices", ["0", "2", "4"])
def test_evaluate_gives_what_training_gave(command, quickstart, devices):
    done = command("evaluate", "--json", "--num_gpus=0", f"--virtual_devices={devices}")
    answer, measured = json.loads(done.out), result(quickstart)
    assert (answer["eval_accuracy"], answer["examples"]) == (measured["eval_accuracy"], 2000)
    assert answer["eval_loss"] == pytest.approx(measured["eval_loss"], rel=1e-5)


def test_evaluate_the_best(command, quickstart):
    best = result(quickstart)["best"]
    done = command("evaluate", "--checkpoint=best")
    assert done.code == 0 and f"step {best['step']:,}" in done.out and f"{best['accuracy']:.2%}" in done.out


def test_predict(command, quickstart):
    folder = quickstart[0]
    data = shapes.render_dataset(0, 10, 40)
    for number, image in enumerate(data.test.images):
        Image.fromarray(image).save(folder / f"{number:02}.png")
    names = [f"{number:02}.png" for number in range(40)]
    rows = [json.loads(line) for line in command("predict", "--json", *names).out.splitlines()]
    assert [row["file"] for row in rows] == names
    right = np.mean([row["class"] == data.classes[label] for row, label in zip(rows, data.test.labels, strict=True)])
    assert right > result(quickstart)["eval_accuracy"] - 0.3 > -0.1
    assert all(sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5) for row in rows)
    table = list(csv.DictReader(io.StringIO(command("predict", "--csv", *names[:3]).out)))
    assert [row["class"] for row in table] == [row["class"] for row in rows[:3]]
    assert rows[0]["class"] in command("predict", names[0]).out


def test_predict_what_is_no_image(command, quickstart):
    (quickstart[0] / "no.png").write_text("not an image")
    for name, part in (("no.png", "no.png: it is not an image"), ("none.png", "none.png: it can't be read")):
        done = command("predict", name)
        assert done.code == 65 and part in done.err and "Traceback" not in done.err


def test_verify_and_export(command, quickstart):
    assert command("verify").code == 0
    card = quickstart[0] / "run/export/MODEL_CARD.md"
    accuracy = json.loads((quickstart[0] / "run/result.json").read_text())["quality"]["accuracy"]
    assert f"**{accuracy:.2%}** of the" in card.read_text() and "| star |" in card.read_text()
    written = card.read_text()
    card.write_text(written.replace("%", "!", 1))
    done = command("verify")
    assert done.code == 74 and "MODEL_CARD.md is not what was written" in done.out
    card.write_text(written)
    path = quickstart[0] / "run/export/model.h5"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    done = command("verify")
    assert done.code == 74 and "model.h5 is not what was written" in done.out
    done = command("export", "--export=h5,keras")
    assert done.code == 0, done.err
    assert command("verify").code == 0
    assert (quickstart[0] / "run/export/saved_model/1/saved_model.pb").exists(), "what wasn't asked for stays"
    assert f"**{accuracy:.2%}** of the" in card.read_text() and "`saved_model/1`" in card.read_text()


def test_bench(run):
    done = run("trainer", "bench", "--dataset=shapes", "--replicas=1,2", "--seconds=0.2", "--repeats=2", "--json")
    assert done.code == 0, done.err
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [row["replicas"] for row in rows] == [1, 2]
    assert all(row["real_images_per_second"] > 100 and row["input_alone_step_ms"][0] > 0 for row in rows)
    assert all(row["verdict"].startswith("bound by ") for row in rows) and rows[1]["all_reduce_ms"][0] > 0


def test_real_images(run, cifar10, tmp_path):
    done = run("trainer.main", f"--data_dir={cifar10}", "--epochs=0.1", "--export=h5")
    assert done.code == 0, done.err
    measured = json.loads((tmp_path / "runs/cifar10-cnn3/result.json").read_text())
    assert measured["eval_accuracy"] > 0.15 and measured["step"] == 40
    assert measured["exports"]["h5"]["examples"] == 10_000


def test_doctor_looks_at_the_machine(run):
    done = run("trainer", "doctor", "--num_gpus=0", "--virtual_devices=2")
    assert done.code == 0, done.err
    assert "training would use: 2 logical CPUs" in done.out
    assert "all-reduce of 4 MiB between 2 replicas: right" in done.out and "tensorflow 2.21" in done.out
