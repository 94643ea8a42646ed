"""Packaging of Lockstep. `pip install .` is all it takes; extras add what only some need."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

setup(
    name="lockstep-trainer",
    version="0.1.0",
    description="Trains image classifiers with TensorFlow on one GPU, several, or several machines",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=find_packages(include=["trainer", "trainer.*", "launch", "launch.*"]),
    # Two private methods of Keras's optimizers are overridden, and TensorFlow 2.21's behaviour is relied on
    # in many places: BUILD_NOTES.md says where, the tests hold it.
    install_requires=[
        "tensorflow>=2.21,<2.22",
        "keras>=3.15.1,<3.16",
        "numpy>=1.26",
        "matplotlib>=3.8",
        "absl-py>=2.1",
        "tensorboard>=2.21,<2.22",
        "rich>=13",
        "pillow>=10",  # matplotlib brings it, too
    ],
    extras_require={
        # TensorFlow's metadata allows cuDNN from 9.3 on; up to 9.5.1 at least, XLA fails at every convolution.
        "cuda": ["tensorflow[and-cuda]>=2.21,<2.22", "nvidia-cudnn-cu12>=9.24,<10"],
        # Fetches and writes public data sets; some 40 packages.
        "tfds": ["tensorflow-datasets>=4.9"],
        "kubernetes": ["pyyaml>=6"],  # launch.kubernetes prints with it
        "test": ["pytest>=8", "pytest-xdist>=3.5", "hypothesis>=6.100", "ruff>=0.9", "pyyaml>=6",
                 "kubernetes-validate>=1.33"],
    },
    entry_points={"console_scripts": ["lockstep = trainer.__main__:program"]},
)
