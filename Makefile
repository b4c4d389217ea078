# Two commands are enough: `make demo` and `make test`. The others are for those who change the code.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-all test-faults check format install

demo: $(VENV)/installed  ## the whole way: corpus, tokenizer, shards, training, stories
	$(BIN)/tinyllm demo

test: $(VENV)/installed-dev  ## the fast tests
	$(BIN)/python -m pytest -n auto -m "not slow and not gpu and not network"

test-all: $(VENV)/installed-dev  ## every test that this machine can run
	$(BIN)/python -m pytest -n auto

test-faults: $(VENV)/installed-dev  ## the fault campaign at full counts: hours; FAULTS="-k kill" for a part of it
	$(BIN)/python -m pytest tests/faults --faults full $(FAULTS)

check: $(VENV)/installed-dev  ## format, lint, types, import rules, version
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/check_version.py

format: $(VENV)/installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

install: $(VENV)/installed

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@
