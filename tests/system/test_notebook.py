"""The notebook in docs/, cell by cell in a process of its own."""

import json
import subprocess

import forks
from conftest import ROOT
from runs import finish

CHECKS = """
assert result["eval_accuracy"] > 0.9 and result["step"] == 64
assert result["exports"]["keras"]["accuracy"] == result["eval_accuracy"]
assert model.output_shape == (None, 2)
"""


def test_its_cells_run_and_say_what_they_promise(tmp_path):
    notebook = json.loads((ROOT / "docs/library.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(cells) > 5 and not any(cell.get("outputs") for cell in notebook["cells"])
    (tmp_path / "cells.py").write_text("\n".join([*cells, CHECKS]))
    out, _ = finish(forks.start("cells", cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE), 0)
    assert "--model must be" in out and "--batch_size must be at least 1; received 0" in out
    assert out.count("--") >= 2 and not (tmp_path / "runs/cifar10-resnet21").exists()
