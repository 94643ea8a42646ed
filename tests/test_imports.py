"""Who may import whom, by folder; read from the source, and once for real."""

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = {"tensorflow", "keras", "matplotlib", "tensorboard"}

# A module imports its own part and those before it. What stands in one line of HOUSE's is in that order, too.
ORDER = ["errors", "options", "rules", "config", "device_kind", "flags", "plan", "storage",
         "quality", "process", "models", "data", "distributed", "checkpoint", "train", "export", "reporting", "run",
         "ending", "loop", "dry_run", "commands", "main", "library", "__main__"]
# Parts that import nothing of TensorFlow's, so that a wrong flag is answered at once and launchers start in no time.
LIGHT = ["errors", "options", "rules", "config", "device_kind", "flags", "plan", "storage", "quality", "process"]
LIGHT_MODULES = ["data/order", "data/lanes", "data/bad_examples", "data/images/crops", "data/images/folder_scan",
                 "data/images/pillow_reader", "data/records/index", "distributed/cluster", "distributed/slurm_env",
                 "distributed/rendezvous", "distributed/wire", "distributed/consistency", "distributed/devices/machine",
                 "distributed/devices/compatibility", "distributed/devices/record", "distributed/devices/autotune",
                 "checkpoint/async_writer", "export/formats/libraries", "train/metrics", "train/loss_monitor",
                 "train/steps_per_call"]
MOST_MODULES = 10


def imports(path, everywhere=True):
    """Names that a file imports: in the whole file but for what only types need, or only when it is loaded."""
    tree = ast.parse(path.read_text())
    nodes = ast.walk(tree) if everywhere else tree.body
    of_types = {inner for node in ast.walk(tree)
                if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
                for inner in ast.walk(node)}
    for node in nodes:
        if node in of_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def heads(path, everywhere=True):
    return {name.split(".")[0] for name in imports(path, everywhere)}


def part_of(path, package):
    return path.relative_to(package).parts[0].removesuffix(".py")


def imported_parts(package):
    """(part, part that it imports, file) of all modules of a copy of the package `trainer`."""
    for path in sorted(package.rglob("*.py")):
        for name in imports(path):
            words = name.split(".")
            if words[0] == "trainer" and len(words) > 1 and words[1] in ORDER:
                yield part_of(path, package), words[1], path


def upward(package):
    return {(mine, other) for mine, other, _ in imported_parts(package)
            if mine in ORDER and ORDER.index(other) > ORDER.index(mine)}


def heavy(package):
    """Modules of parts and of the list that may not import TensorFlow, and do."""
    paths = [path for path in package.rglob("*.py") if part_of(path, package) in LIGHT]
    paths += [package / f"{name}.py" for name in LIGHT_MODULES]
    return {str(path.relative_to(package)) for path in paths if heads(path) & HEAVY}


def test_no_part_imports_what_comes_after_it():
    assert not upward(ROOT / "trainer")


def test_every_part_has_its_place_in_the_order():
    parts = {part_of(path, ROOT / "trainer") for path in (ROOT / "trainer").rglob("*.py")}
    assert parts - {"__init__"} == set(ORDER)


def test_the_watcher_imports_no_package():
    """It is started as a script, isolated, while TensorFlow may hold this process."""
    assert heads(ROOT / "trainer/process/guard/watcher.py") <= set(sys.stdlib_module_names)


def test_light_parts_import_no_tensorflow():
    assert heavy(ROOT / "trainer") == {"process/tf_import.py"}  # the one that is for it


def test_storage_imports_no_other_folder():
    parts = {other for mine, other, _ in imported_parts(ROOT / "trainer") if mine == "storage"}
    assert parts <= {"storage", "errors", "options", "config"}


@pytest.mark.parametrize("where, line, found", [
    ("data/order.py", "from trainer.train.losses import cross_entropy", {("data", "train")}),
    ("storage/durable.py", "from trainer import process", {("storage", "process")}),
    ("models/blocks.py", "import trainer.loop", {("models", "loop")})])
def test_a_forbidden_import_is_found(tmp_path, where, line, found):
    copy = copy_of_the_package(tmp_path)
    (copy / where).write_text(f"{line}\n{(copy / where).read_text()}")
    assert upward(copy) == found


@pytest.mark.parametrize("where", ["plan.py", "process/signals.py", "data/lanes.py"])
def test_a_forbidden_tensorflow_is_found(tmp_path, where):
    copy = copy_of_the_package(tmp_path)
    (copy / where).write_text(f"{(copy / where).read_text()}\n\ndef later():\n    import tensorflow\n")
    assert where in heavy(copy)


def copy_of_the_package(folder):
    """The sources of `trainer` in a folder."""
    for path in (ROOT / "trainer").rglob("*.py"):
        copy = folder / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text())
    return folder / "trainer"


def test_no_folder_has_more_than_ten_modules():
    for folder in {path.parent for package in ("trainer", "launch") for path in (ROOT / package).rglob("*.py")}:
        modules = [path.name for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(modules) <= MOST_MODULES, folder


def test_the_launchers_import_no_tensorflow_at_all():
    paths = list((ROOT / "launch").rglob("*.py"))
    assert len(paths) > 20
    for path in paths:
        assert not heads(path) & HEAVY, path


@pytest.mark.slow
def test_entry_points_and_commands_import_no_tensorflow_when_they_are_loaded():
    for path in [ROOT / "trainer/main.py", ROOT / "trainer/__main__.py", *(ROOT / "trainer/commands").glob("*.py")]:
        assert not heads(path, everywhere=False) & HEAVY, path
    code = ("import sys, trainer.main, trainer.__main__, trainer.commands.evaluate, trainer.commands.bench\n"
            "assert not {'tensorflow', 'keras', 'matplotlib'} & set(sys.modules)")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.slow
def test_keras_imports_no_matplotlib_and_reports_can_without_pyplot(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    code = ("import sys, trainer.process.tf_import, keras\nfrom trainer.reporting import plots\n"
            "assert 'matplotlib' not in sys.modules\nplots.plot_curves(sys.argv[1], sys.argv[2], 'test')\n"
            "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules")
    subprocess.run([sys.executable, "-c", code, tmp_path / "metrics.jsonl", tmp_path / "curves.png"], check=True,
                   cwd=ROOT)
    assert (tmp_path / "curves.png").exists()


def test_only_flags_and_the_commands_see_absls_flags():
    for path in (ROOT / "trainer").rglob("*.py"):
        if path.name != "flags.py":
            assert not {"absl.flags", "absl.app"} & set(imports(path)), path


def test_reporting_touches_no_state():
    assert not {(mine, other) for mine, other, _ in imported_parts(ROOT / "trainer")} & {("reporting", "train")}


@pytest.mark.parametrize("name", ["all_reduce", "averages", "gradients", "random_layers", "train_loop", "update"])
def test_the_step_does_no_input_or_output(name):
    path = ROOT / f"trainer/train/step/{name}.py"
    tree = ast.parse(path.read_text())
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert "tf" in names and not {"print", "open", "summary", "io", "py_function", "numpy_function"} & names
    assert heads(path) <= {"__future__", "collections", "itertools", "typing", "trainer"}


def test_an_export_is_measured_without_this_package():
    allowed = {"collections", "contextlib", "ctypes", "gc", "json", "os", "statistics", "sys", "time", "traceback",
               "numpy", "tensorflow", "keras", "ai_edge_litert", "onnxruntime", "openvino"}
    assert heads(ROOT / "trainer/export/measure_script.py") <= allowed


def test_only_one_file_says_what_a_devices_kind_implies():
    """Everything else asks the `DeviceKind`; who asks a device's name again can't be tested without a GPU."""
    for path in (ROOT / "trainer").rglob("*.py"):
        if path != ROOT / "trainer/device_kind.py":
            assert not re.search(r"""["'][^"'\n]*:GPU""", path.read_text()), path


def test_no_modules_import_each_other_in_a_circle():
    """At any depth, also inside functions; graphlib names the circle."""
    graph = {}
    for package in ("trainer", "launch"):
        for path in (ROOT / package).rglob("*.py"):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            names = {other for other in imports(path) if other.split(".")[0] in ("trainer", "launch")}
            graph[name] = {other for other in names if module_file(other)} - {name}
    # A package's __init__ imports its modules, and they are imported through it: that is no circle.
    graph = {name: {other for other in others if module_file(other).name != "__init__.py"}
             for name, others in graph.items()}
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) > 100


def module_file(name):
    """The file of a module's name, or None if it is the name of something in a module."""
    path = ROOT.joinpath(*name.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.exists()), None)
