"""What a process uses of its machine: memory that was freed is kept for the next request."""

import platform
import subprocess
import sys

import pytest
from conftest import ROOT, environment

pytestmark = [pytest.mark.slow, pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="is of glibc alone")]

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


def test_the_images_of_the_next_step_take_the_memory_of_the_last():
    told = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, cwd=ROOT, check=True,
                          env=environment())
    given_back, kept = map(int, told.stdout.split())
    assert kept < given_back / 10
