"""What a process uses of its machine: memory that was freed is kept for the next request."""

import dataclasses
import platform
import subprocess
import sys

import pytest
from conftest import ROOT, environment, make_runtime

from trainer.device_kind import CPU, GPU
from trainer.process import host

STEPS = """
import resource
from trainer.process.host import keep_freed_memory

def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        step = [bytes(70_000) for _ in range(128)]  # as the encoded images of a step
        del step
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

pages()
given_back = pages()
keep_freed_memory()
pages()
print(given_back, pages())
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="is of glibc alone")
def test_the_images_of_the_next_step_take_the_memory_of_the_last():
    told = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, cwd=ROOT, check=True,
                          env=environment())
    given_back, kept = map(int, told.stdout.split())
    assert kept < given_back / 10


@pytest.mark.parametrize("flags, multiplies", [
    ("fpu avx512f avx512_bf16", True), ("fpu amx_bf16 amx_tile", True), ("fpu avx512f avx512_bf16x", False),
    ("", False)])
def test_what_the_processor_multiplies(tmp_path, flags, multiplies):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t: none\n")
    assert host.multiplies_bfloat16(str(tmp_path / "cpuinfo")) == multiplies
    assert not host.multiplies_bfloat16(str(tmp_path / "nothing"))


@pytest.mark.parametrize("kind, replicas, workers, precision, has, words", [
    (CPU, 1, 1, "float32", True, ["--precision=bfloat16"]), (CPU, 1, 1, "bfloat16", True, []),
    (CPU, 4, 1, "float32", False, []), (GPU, 1, 1, "float32", True, []),
    (GPU, 4, 1, "bfloat16", False, ["launch.local --num_workers=0"]), (GPU, 2, 1, "bfloat16", False, []),
    (GPU, 4, 2, "bfloat16", False, [])])
def test_what_would_be_faster_is_told(monkeypatch, kind, replicas, workers, precision, has, words):
    monkeypatch.setattr(host, "multiplies_bfloat16", lambda: has)
    runtime = dataclasses.replace(make_runtime(replicas), kind=kind, workers=workers, precision=precision)
    lines = runtime.advice()
    assert len(lines) == len(words) and all(word in line for word, line in zip(words, lines, strict=True))
