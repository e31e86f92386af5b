# Two commands for a fresh machine: `make demo` and `make test`. Both make .venv first; `make test-oldest` makes its own.
# The tests see no GPU; those of `make test-gpu` need one.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
OLDEST := .venv-oldest
OLDEST_READY := $(OLDEST)/.ready

.PHONY: demo test test-gpu test-oldest check format clean

demo: $(READY)
	$(BIN)/visionlora demo

# Each test computes on one thread, so that several files run side by side. They are handed out as they were collected:
# by default xdist keeps the files of few tests for the end, and some of those are the longest.
PYTEST := pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: $(READY)
	$(BIN)/$(PYTEST)

test-gpu: $(READY)
	VISIONLORA_TEST_GPU=1 $(BIN)/pytest tests/test_cuda.py

# Every direct dependency at the lowest version that pyproject.toml admits, and of each test an eighth of its cases. Tests on real weights say nothing more there,
# nor do merged detectors, which are made of layers that are merged by themselves.
OLDEST_TESTS := tests/adapters tests/ops tests/models --ignore-glob '*real_weights.py' \
	--ignore tests/models/test_detector_merge.py \
	tests/cli/test_refusals.py \
	tests/training/test_run.py::test_a_run_folder_holds_what_the_tutorial_says \
	tests/training/test_detection_run.py::test_a_run_leaves_scores_thresholds_curves_and_pictures \
	tests/training/test_segmentation_run.py::test_a_run_leaves_scores_and_pictures

test-oldest: $(OLDEST_READY)
	$(OLDEST)/bin/$(PYTEST) --one-in 8 $(OLDEST_TESTS)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(MAKE) test

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(OLDEST) dist build .pytest_cache .mypy_cache .ruff_cache

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	$(BIN)/python -c 'import cv2' || $(BIN)/python -m pip install --quiet --force-reinstall --no-deps opencv-python-headless
	touch $@

$(OLDEST_READY): pyproject.toml scripts/lowest_versions.py
	$(PYTHON) -m venv $(OLDEST)
	$(PYTHON) scripts/lowest_versions.py > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/python -m pip install --quiet --upgrade pip
	$(OLDEST)/bin/python -m pip install --quiet --editable '.[video,onnx,test]' --constraint $(OLDEST)/constraints.txt
	touch $@
