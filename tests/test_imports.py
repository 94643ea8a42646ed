"""Who may import whom: read from the source, and once for real."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = {"tensorflow", "keras", "matplotlib"}


def imports(path, everywhere=True):
    """Names that a file imports: in the whole file, or only when it is loaded."""
    tree = ast.parse(path.read_text())
    nodes = ast.walk(tree) if everywhere else tree.body
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def heads(path, everywhere=True):
    return {name.split(".")[0] for name in imports(path, everywhere)}


@pytest.mark.parametrize("name", [
    "config",
    "plan",
    "errors",
    "data/order",
    "flags",
    "storage/model_dir",
    "storage/durable",
    "train/metrics",
    "train/steps_per_call",
    "process/signals",
    "distributed/cluster",
    "distributed/slurm_env",
    "distributed/rendezvous",
    "distributed/consistency",
    "process/watchdog",
    "storage/folder_lock",
    "checkpoint/async_writer",
    "train/loss_monitor",
    "bit_versions",
    "device_kind",
    "distributed/devices/machine",
    "process/gpu_environment",
    "distributed/devices/compatibility",
    "process/gpu_failures",
    "distributed/devices/record",
    "distributed/devices/autotune",
    "data/lanes",
    "data/images/crops",
    "data/images/folder_scan",
    "data/records/index",
    "data/images/pillow_reader",
    "data/bad_examples",
    "process/user_code"])
def test_these_import_no_tensorflow_at_all(name):
    assert not heads(ROOT / "trainer" / f"{name}.py") & HEAVY


def test_the_launchers_import_no_tensorflow_at_all():
    paths = list((ROOT / "launch").glob("*.py"))
    assert paths
    for path in paths:
        assert not heads(path) & HEAVY, path


def test_entry_points_and_commands_import_no_tensorflow_when_they_are_loaded():
    for path in [ROOT / "trainer/main.py", ROOT / "trainer/__main__.py", *(ROOT / "trainer/commands").glob("*.py")]:
        assert not heads(path, everywhere=False) & HEAVY, path
    code = ("import sys, trainer.main, trainer.__main__, trainer.commands.evaluate, trainer.commands.bench\n"
            "assert not {'tensorflow', 'keras', 'matplotlib'} & set(sys.modules)")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_only_flags_and_the_commands_see_absls_flags():
    for path in (ROOT / "trainer").rglob("*.py"):
        if path.name != "flags.py":
            assert not {"absl.flags", "absl.app"} & set(imports(path)), path


def test_reporting_touches_no_state():
    for path in (ROOT / "trainer/reporting").glob("*.py"):
        assert not {"trainer.train.step", "trainer.train.state"} & set(imports(path)), path


def test_the_step_does_no_input_or_output():
    tree = ast.parse((ROOT / "trainer/train/step.py").read_text())
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert "tf" in names and not {"print", "open", "summary", "io", "py_function", "numpy_function"} & names
    assert heads(ROOT / "trainer/train/step.py") == {"itertools", "typing", "tensorflow", "trainer"}


def test_an_export_is_measured_without_this_package():
    assert heads(ROOT / "trainer/export/measure_script.py") <= {"ctypes", "json", "sys", "numpy", "tensorflow", "keras"}


def test_only_one_file_says_what_a_devices_kind_implies():
    """Everything else asks the `DeviceKind`; who asks a device's name again can't be tested without a GPU."""
    for path in (ROOT / "trainer").rglob("*.py"):
        if path != ROOT / "trainer/device_kind.py":
            assert not re.search(r"""["'][^"'\n]*:GPU""", path.read_text()), path
