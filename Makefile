# Two commands on a fresh machine with Python 3.11: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
ALL := .venv-runtimes/bin
TORCH := 'torch>=2.11,<2.14'

.PHONY: demo test coverage test-runtimes test-docs docs linkcheck check clean

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet --editable '.[demo,dev]'
	touch $@

# The runtimes beside ONNX Runtime, with packages of a gigabyte or two.
.venv-runtimes/installed: pyproject.toml
	$(PYTHON) -m venv .venv-runtimes
	$(ALL)/python -m pip install --quiet $(TORCH) --editable '.[dev,runtimes]'
	touch $@

demo: .venv/installed
	$(BIN)/penjing fit digits --target cpu --max-drop 1.0 --minutes 2 --out fitted/digits --overwrite

test: .venv/installed check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m 'not alone' --ignore=tests/docs $(COUNTING)
	$(BIN)/python -m pytest -m alone

# The same with the share of lines that run: half as long again, for Python 3.11 counts slowly.
# What runs in processes of its own, as the runner does, isn't counted.
coverage: COUNTING := --cov=penjing --cov-report=
coverage: test
	@echo "coverage: $$($(BIN)/python -m coverage report --format=total) % of penjing's lines"

test-runtimes: .venv-runtimes/installed
	OMP_NUM_THREADS=1 $(ALL)/python -m pytest -n auto tests/runtimes/ethosu tests/runtimes/executorch \
		tests/runtimes/openvino tests/runtimes/tflite tests/runtimes/test_half.py tests/runtimes/test_detectors.py tests/runtimes/test_signature.py tests/runtimes/test_way_down.py \
		tests/runtimes/onnx/test_onnx_providers.py tests/network/lowering/test_as_convolutions.py \
		tests/tools/test_hostile_files.py
	$(ALL)/python -m pytest tests/device/test_runner.py tests/runtimes/test_runtimes.py tests/test_telemetry.py

# What the documentation shows is run, with all runtimes.
test-docs: .venv-runtimes/installed
	OMP_NUM_THREADS=1 PENJING_SLOW_PAGES=1 $(ALL)/python -m pytest -n auto tests/docs tests/test_documentation.py

# The site, in docs/_build. Whatever Sphinx warns of fails it: an unknown name, a link that leads nowhere.
docs: .venv/installed
	$(BIN)/python -m sphinx -W --keep-going -n -q -E -b html -d docs/_build/.doctrees docs docs/_build
	@echo "documentation: docs/_build/index.html"

# Links to other sites, which takes a network.
linkcheck: .venv/installed
	$(BIN)/python -m sphinx -q -b linkcheck docs docs/_build/linkcheck

check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy

clean:
	rm -rf .venv .venv-runtimes fitted .coverage docs/_build
