"""The command line: every flag reaches the config, and all that is wrong is said at once."""

import dataclasses
import importlib
import typing

import pytest

from trainer import __main__ as commands
from trainer import flags
from trainer.commands import bench, doctor
from trainer.config import Config
from trainer.errors import UsageError


def problems(*words):
    with pytest.raises(UsageError) as caught:
        flags.parse(Config, words)
    return caught.value.problems


def test_defaults_are_the_configs():
    assert flags.parse(Config, []) == Config()
    assert Config().model_dir == "runs/cifar10-cnn3"


def test_every_flag_reaches_the_config():
    words = ["--model_dir=x", "--resume=never", "--seed=3", "--num_gpus=0", "--virtual_devices=2",
             "--strategy=mirrored", "--precision=bfloat16", "--xla=on", "--tf32=off", "--deterministic",
             "--all_reduce=bfloat16", "--dataset=shapes", "--data_dir=d",
             "--batch_size=64", "--image_size=64", "--validation_fraction=0.2", "--max_bad_records=3",
             "--lanes=32", "--input=host", "--start_timeout=9", "--hang_timeout=8",
             "--augment=flip,crop", "--model=cnn2", "--optimizer=sgd", "--learning_rate=0.5", "--momentum=0.8",
             "--weight_decay=0.1", "--schedule=cosine", "--warmup_epochs=0.5", "--label_smoothing=0.1", "--clip_norm=2",
             "--epochs=0.5", "--max_steps=9", "--max_hours=2", "--eval_every_epochs=2", "--log_every_steps=7",
             "--patience=4",
             "--target_accuracy=0.9", "--checkpoint_every_steps=11", "--checkpoint_every_minutes=0",
             "--keep_checkpoints=2", "--max_bad_steps=5", "--spike_factor=3", "--export=h5", "--ledger",
             "--profile_steps=10-20",
             "--export_checkpoint=best", "--resize=pad", "--dry_run", "--loss=focal", "--sampling=balanced",
             "--ema_decay=0.9", "--drop_path=0.1", "--accumulate_steps=4", "--microbatch=32",
             "--sync_batch_norm",
             "--bias_learning_rate_scale=64", "--head_learning_rate=0.1", "--layer_decay=0.8",
             "--scale_learning_rate=sqrt", "--lookahead_steps=5", "--lookahead_alpha=0.8",
             "--calibrate_export", "--train_sizes=16,32@2", "--init_from=x.keras",
             "--freeze=conv.*", "--log_gradient_norm", "--metrics=m:f", "--trackers=mlflow,wandb",
             "--notify=https://example.com/hook"]
    config = flags.parse(Config, words)
    assert flags.parse(Config, ["--class_weights=balanced"]).class_weights == "balanced"  # not beside --sampling
    others = {field.name for field in dataclasses.fields(Config)} - {"class_weights"}
    assert len(words) == len(others)
    for name in others:
        assert getattr(config, name) != getattr(Config(), name), name
    assert config.augment == ("flip", "crop") and config.max_steps == 9 and config.learning_rate == 0.5


def test_all_that_is_wrong_is_said_at_once():
    found = problems("--batch_size=abc", "--lerning_rate=1", "--epochs=-1", "--model=vgg", "--augment=flip,blur",
                     "--momentum=nan", "what")
    text = "\n".join(found)
    assert len(found) == 7
    for part in ("--batch_size must be a whole number; received 'abc'", "did you mean --learning_rate?",
                 "--epochs must be above 0; received -1.0", "'vgg'", "'blur'", "finite number; received nan", "'what'"):
        assert part in text


@pytest.mark.parametrize("words, part", [
    (["--epochs"], "Missing value"), (["--flagfile=nowhere.cfg"], "nowhere.cfg"),
    (["--num_gpus=4", "--batch_size=127"], "124 or 128"), (["--export=none,h5"], "excludes"),
    (["--sampling=balanced", "--class_weights=balanced"], "count rare ones twice"),
    (["--strategy=one_device", "--virtual_devices=2"], "one replica"), (["--seed=-1"], "at least 0"),
    (["--max_steps=0"], "at least 1"), (["--export="], "names no format"), (["--augment=flip,flip"], "twice"),
    (["--augment=flip,alternating_flip"], "both together are neither"),
    (["--batch_size="], "a whole number"), (["--xla"], "Missing value"),
    (["--train_sizes=16@1"], "a size from epoch 0 on"), (["--train_sizes=16,24@2,32@1"], "its epochs rise"),
    (["--freeze=("], "--freeze must be a regular expression"), (["--train_sizes=0"], "SIZE@EPOCH"),
    (["--dataset=folder"], "--dataset=folder needs --data_dir: the folder of the images"),
    (["--dataset=csv"], "--dataset=csv needs --data_dir: the CSV file, or the folder with train.csv"),
    (["--dataset=records", "--data_dir="], "--dataset=records needs --data_dir: the folder with dataset.json"),
    (["--model=a b:c"], "package.module:function"), (["--model_dir=~nosuchuser/x"], "home of a user")])
def test_wrong_values(words, part):
    assert part in "\n".join(problems(*words))


@pytest.mark.parametrize("command", [doctor, bench])
def test_commands_on_data_need_its_folder_too(command):
    assert command.Options(dataset="folder").problems() == ["--dataset=folder needs --data_dir: the folder of the "
                                                            "images"]
    assert not command.Options(dataset="folder", data_dir="d").problems() and not command.Options().problems()


@pytest.mark.parametrize("name, value", [("out", "a.html"), ("json", True), ("images", 3)])
def test_flags_of_a_look_at_data_need_it(name, value):
    assert doctor.Options(**{name: value}).problems() == [f"--{name} needs --data"]
    assert not doctor.Options(data=True, **{name: value}).problems()


def test_a_flagfile_and_what_comes_after_it(tmp_path):
    (tmp_path / "a.cfg").write_text("# a comment\n--epochs=3\n--model=cnn2\n")
    config = flags.parse(Config, [f"--flagfile={tmp_path}/a.cfg", "--epochs", "4"])
    assert config.model == "cnn2" and config.epochs == 4


def test_help_names_every_flag(capsys):
    with pytest.raises(SystemExit) as ended:
        flags.parse(Config, ["--help"])
    assert not ended.value.code
    out = capsys.readouterr().out
    assert all(f"--{field.name}" in out for field in dataclasses.fields(Config))


def test_a_config_survives_json():
    import json

    config = Config(augment=("crop",), max_steps=3, model_dir="somewhere")
    assert Config.from_mapping(json.loads(config.to_json())) == config


def test_differences_say_what_makes_another_run():
    assert Config().differences(Config(batch_size=64, epochs=3)) == [
        ("batch_size", None, 64, True), ("epochs", 10.0, 3, False)]


def test_the_shipped_configs_are_valid(request):
    paths = list((request.config.rootpath / "configs").glob("*.cfg"))
    assert len(paths) >= 4
    for path in paths:
        flags.parse(Config, [f"--flagfile={path}"])


def every_options():
    """(the options of every command and launcher, the name of its argument that isn't a flag)."""
    from launch import kubernetes, local, slurm, ssh
    from launch.sweep import __main__ as sweep

    yield Config, None
    for name in set(commands.COMMANDS) - {"train"}:
        module = importlib.import_module(f"trainer.commands.{name}")
        yield module.Options, getattr(module, "POSITIONAL", None)
    yield from [(module.Options, None) for module in (kubernetes, local, slurm, ssh)]
    yield sweep.Options, "file"


@pytest.mark.parametrize("url, way", [
    ("gs://bucket/run", "gcsfuse"), ("s3a://bucket/run", "mount-s3"), ("hdfs://name:8020/x", "hdfs dfs -get"),
    ("HTTPS://example.org/x.zip", "curl"), ("abfss://a@b/x", "blobfuse2"), ("weka+x://y", "mount it"),
    ("gs:/bucket/run", "gcsfuse"), ("file:///a%20b/c", "write the path alone: /a b/c"),
    ("file://host/a", "write the path alone: /a"), ("file:/a", "write the path alone: /a")])
def test_no_flag_of_any_command_or_launcher_takes_a_url(url, way):
    tried = 0
    for options, positional in every_options():
        hints = typing.get_type_hints(options)
        for field in dataclasses.fields(options):
            is_text = flags._kind(hints[field.name]) in (str, tuple)
            if field.metadata["choices"] or field.metadata["secret"] or not is_text:
                continue
            words = [url] if field.name == positional else [f"--{field.name}={url}"]
            name = field.name.upper() if field.name == positional else f"--{field.name}"
            with pytest.raises(UsageError) as caught:
                flags.parse(options, words, positional)
            (problem,) = [line for line in caught.value.problems if "takes no URLs" in line]
            assert problem.startswith(f"{name} takes no URLs") and repr(url) in problem and way in problem
            tried += 1
    assert tried > 20


@pytest.mark.parametrize("words", [["--flagfile=gs://b/x.cfg"], ["--flagfile", "gs://b/x.cfg"],
                                   ["--epochs=3", "-flagfile=gs://b/x.cfg"]])
def test_a_flagfile_is_no_url(words):
    assert "--flagfile takes no URLs" in problems(*words)[0] and "gcsfuse" in problems(*words)[0]


def test_the_home_of_nobody_is_told_by_every_flag():
    with pytest.raises(UsageError, match="--out names the home of a user who has none, or does not exist"):
        flags.parse(importlib.import_module("trainer.commands.prepare").Options, ["--data_dir=x", "--out=~nosuch/x"])


def test_what_only_looks_like_a_url_is_a_path():
    for name in ("a:b/c", "C:/x", "runs/gs://x", "12:34", "./s3:/x", "tfds:mnist"):
        assert not Config(model_dir=name, data_dir=name).problems(), name


@pytest.mark.parametrize("value, found", [("100-110", (100, 110)), ("100,110", (100, 110)), ("7-7", (7, 7)),
                                          ("", None)])
def test_profiled_steps_are_two_numbers(value, found):
    assert flags.parse(Config, [f"--profile_steps={value}"]).profiled == found


@pytest.mark.parametrize("value", ["1-5", "0-5", "9-5", "5-2000", "5", "a-b", "5-6-7", "-5-6"])
def test_other_profiled_steps_are_refused(value):
    (problem,) = problems(f"--profile_steps={value}")
    assert problem.startswith("--profile_steps") and value in problem and "A-B" in problem
