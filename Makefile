# The two commands that matter: `make serve` and `make test`. Both need only Python 3.11 or later, git and make.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
WHEEL_VENV = build/wheel-venv
PYTEST_OPTIONS ?=
# Files of tests that run at a time. More than the machine has cores only disturb each other.
WORKERS ?= 2

.PHONY: help serve demo test foreign lint types wheel tests again coverage bench scores rows soak clean

help:
	@echo "make serve   set up and run the broker (ARGS='--plugin echo' passes options on)"
	@echo "make demo    the whole story in one command, no device needed"
	@echo "make test    set up and run all checks"
	@echo "make again   the tests that failed in the last run, alone"
	@echo "make lint    format, style, spelling, layers and types only"
	@echo "make bench   measure this machine, as ratios against named references"
	@echo "make scores  judge the broker and other libraries by the specification; writes docs/reference/conformance.md"
	@echo "make soak    the long tests in full"
	@echo "make rows    which test proves which requirement row (ROWS='F-1 A-26' for some)"
	@echo "make coverage  the tests once more, and which lines they reach"

$(BIN)/rsocket-broker: setup.cfg setup.py pyproject.toml rsocket_broker/protocol/_starts.c
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip "setuptools>=68"
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/test-tools: $(BIN)/rsocket-broker
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --editable ".[test]" build
	@touch $@

serve: $(BIN)/rsocket-broker
	$(BIN)/rsocket-broker serve $(ARGS)

demo: $(BIN)/rsocket-broker
	$(BIN)/rsocket-broker demo $(ARGS)

test: foreign lint types tests

# Clients of other languages, which the tests want built: beside the checks of the text, which use one core.
foreign: $(VENV)/test-tools
	@$(BIN)/python tests/interop/libraries.py >/dev/null 2>&1 &

lint: $(VENV)/test-tools
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell rsocket_broker certs plugins tests examples benchmarks docs README.md CHANGELOG.md

# Types and layers are checked on the installed wheel: in a checkout neither tool sees the mapped packages
# (rsocket_broker.plugins, rsocket_broker.certs), and a folder missing from the package list would go unnoticed.
wheel: $(VENV)/test-tools
	rm -rf build/lib build/lib.* build/bdist.* build/dist
	$(BIN)/python -m build --quiet --wheel --outdir build/dist .
	$(PYTHON) -m venv --clear $(WHEEL_VENV)
	$(WHEEL_VENV)/bin/python -m pip install --quiet --upgrade pip
	$(WHEEL_VENV)/bin/python -m pip install --quiet build/dist/*.whl mypy import-linter pytest

types: wheel
	cd build && wheel-venv/bin/python -m mypy --config-file ../pyproject.toml -p rsocket_broker
	cd build && wheel-venv/bin/lint-imports --config ../pyproject.toml --no-cache

# Compiled first, also where Python is told to write no bytecode by itself: hundreds of commands start here.
tests: $(VENV)/test-tools wheel
	$(BIN)/python -m compileall -q rsocket_broker plugins certs
	RSOCKET_BROKER_WHEEL_VENV=$(CURDIR)/$(WHEEL_VENV) $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(PYTEST_OPTIONS)

# What failed in the last run, with nothing else beside it.
again: $(VENV)/test-tools
	RSOCKET_BROKER_WHEEL_VENV=$(CURDIR)/$(WHEEL_VENV) $(BIN)/python -m pytest --last-failed --last-failed-no-failures none $(PYTEST_OPTIONS)

# Apart from the tests, which it slows down by a third.
coverage: $(VENV)/test-tools wheel
	RSOCKET_BROKER_WHEEL_VENV=$(CURDIR)/$(WHEEL_VENV) $(BIN)/python -m pytest --cov --cov-report=term:skip-covered $(PYTEST_OPTIONS)

soak: $(VENV)/test-tools wheel
	RSOCKET_BROKER_WHEEL_VENV=$(CURDIR)/$(WHEEL_VENV) $(BIN)/python -m pytest --soak --timeout=3600 $(PYTEST_OPTIONS)

bench: $(VENV)/test-tools
	$(BIN)/python benchmarks/run.py $(ARGS)

scores: $(VENV)/test-tools
	$(BIN)/python tests/conformance/score.py $(ARGS)

rows:
	@$(PYTHON) tests/rows.py $(ROWS)

clean:
	rm -rf build dist *.egg-info .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis
