# make run          a fresh machine to a trained, evaluated, exported model
# make test         a fresh machine to a green test suite
# make test-all     these and the longer tests of each kind, which make test leaves to the shorter ones (twice as long)
# make test-fast    the tests that start no process, in under a minute
# make test-gpu     everything that only a GPU can show, on a machine that has one; DEVICES=cpu tries the checks themselves
# make test-digits  trains on real digits, which npm and pip fetch, to at least 96 % (a few minutes)
# make test-exports every export in an environment of its own, with its runtime and without this project (minutes)
# make test-browser the pages of a run in a real browser (Debian: apt-get install chromium chromium-driver)
# make test-trackers MLflow, Weights & Biases and Trackio themselves, in an environment of their own (minutes)
# make lint         style, imports and types
# make docs         the pages of docs/ as a site in build/site, strictly: a dead link is an error
# make torture      kills and resumes without end: at every write of a save and an export, and at random (an hour)
# make package      builds sdist and wheel, and tries the wheel as a user who isn't root, in a clean environment (minutes)
# make bench        the table of benchmarks/RESULTS.md that compares speeds (needs the data; see benchmarks/speed.py)
# make recipes      the table of RECIPES (names of configs/), each trained with SEEDS seeds: build/recipes/recipes.md and .csv
# make bench-input  reading images: speed beside a bare loop, the first step, memory (20 GB of room in TMPDIR)
# make clean        remove the environment and what was built

PYTHON ?= python3
VENV := .venv
RUN_DIR ?= runs/quickstart
DATA_DIR ?= .test-data
DEVICES ?= gpu
RECIPES ?= speedrun resnet20
SEEDS ?= 5
NOT_HERE := --ignore=tests/gpu --ignore=tests/browser --ignore=tests/trackers
FOUR := --numprocesses=4 --dist=loadfile --no-loadscope-reorder

.PHONY: help run test test-all test-fast test-gpu test-digits test-exports test-browser test-trackers lint docs bench bench-input recipes torture package clean

help:
	@sed -n 's/^# make/make/p' Makefile

run: $(VENV)/installed
	$(VENV)/bin/python -m trainer.main --flagfile=configs/quickstart.cfg --model_dir=$(RUN_DIR)

test: lint
	$(VENV)/bin/python -m pytest tests $(NOT_HERE) -m "not long" $(FOUR)

test-all: lint
	$(VENV)/bin/python -m pytest tests $(NOT_HERE) $(FOUR)

test-fast: $(VENV)/installed-test
	$(VENV)/bin/python -m pytest tests $(NOT_HERE) -m "not slow and not long" --numprocesses=2 --dist=loadfile

test-gpu: $(VENV)/installed-test
	[ $(DEVICES) != gpu ] || $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[cuda,test]'
	$(VENV)/bin/python tests/gpu/run.py --devices=$(DEVICES)

test-digits: $(VENV)/installed-test
	$(VENV)/bin/python tests/real_data/digits.py

test-exports: $(VENV)/installed-test
	$(VENV)/bin/python tests/exports/environments.py

test-browser: $(VENV)/installed-test
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[browser]'
	$(VENV)/bin/python -m pytest tests/browser

# An environment of its own: Trackio 0.43 wants Pillow below 13.
test-trackers: pyproject.toml
	[ -x .venv-trackers/bin/python ] || $(PYTHON) -m venv .venv-trackers
	.venv-trackers/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[test,mlflow,wandb,trackio,notify]'
	.venv-trackers/bin/python -m pytest tests/trackers

lint: $(VENV)/installed-test
	$(VENV)/bin/python -m ruff check .
	$(VENV)/bin/python -m pyright --pythonpath $(VENV)/bin/python

# Both builders: MkDocs 1.x is in wide use and no longer maintained, Zensical is young.
docs: $(VENV)/installed
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	$(VENV)/bin/mkdocs build --quiet --strict --site-dir=build/site-mkdocs
	$(VENV)/bin/zensical build --strict --clean

torture: $(VENV)/installed-test
	$(VENV)/bin/python tests/system/torture.py

package:
	$(PYTHON) tests/package/check.py --python=$(PYTHON)

bench: $(VENV)/installed-test
	$(VENV)/bin/python benchmarks/speed.py --data_dir=$(DATA_DIR)

recipes: $(VENV)/installed-test
	$(VENV)/bin/python benchmarks/recipes.py $(RECIPES) --seeds=$(SEEDS) --data_dir=$(DATA_DIR) --tta=flip_translate

bench-input: $(VENV)/installed-test
	$(VENV)/bin/python benchmarks/input.py speed
	$(VENV)/bin/python benchmarks/input.py resume
	$(VENV)/bin/python benchmarks/input.py memory

# pip's own output is long and says little; what matters is the name of what is missing, and it prints that.
$(VENV)/installed: pyproject.toml trainer/__init__.py
	$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info[:2] < (3, 14) or sys.exit( \
	    "TensorFlow 2.21 and Keras 3.15 are for Python 3.11 to 3.13; this is " + sys.version.split()[0] + \
	    "; name another: make PYTHON=python3.12")'
	$(VENV)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV) .venv-trackers build dist *.egg-info .pytest_cache .ruff_cache
