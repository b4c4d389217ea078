# Two commands are enough: `make demo` and `make test`. The others are for those who change the code.
# Both install the versions of requirements.lock.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# The versions that were tested. pip 25.3 and newer take those of the build backend from the second name.
LOCK := requirements.lock
LOCKED := PIP_CONSTRAINT=$(LOCK) PIP_BUILD_CONSTRAINT=$(LOCK)

.PHONY: demo test test-newest test-all test-faults bench bench-full bench-gpu scaling-laws bundled-model settings-page check page-check browser page-types page-libraries format install lock

demo: $(VENV)/installed  ## the whole way: corpus, tokenizer, shards, training, stories
	$(BIN)/tinyllm demo

test: $(VENV)/installed-dev  ## the fast tests
	$(BIN)/python -m pytest -n auto -m "not slow and not gpu"

test-newest:  ## the fast tests with the newest allowed versions instead of the locked ones; every warning is an error
	rm -rf .venv-newest
	$(PYTHON) -m venv .venv-newest
	.venv-newest/bin/python -m pip install --quiet --editable '.[dev]'
	.venv-newest/bin/python -m pip list --format freeze --exclude-editable
	.venv-newest/bin/python -m pytest -n auto -m "not slow and not gpu" -W error

test-all: $(VENV)/installed-dev  ## every test that this machine can run
	$(BIN)/python -m pytest -n auto

test-faults: $(VENV)/installed-dev  ## the fault campaign at full counts: under an hour; FAULTS="-k kill" for a part of it
	$(BIN)/python -m pytest tests/faults --faults full $(FAULTS)

check: $(VENV)/installed-dev page-check  ## format, lint, types, import rules, version
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/check_version.py

# Users need no Node; those who change the page do.
page-check:  ## types of the studio's page by tsc, and its libraries against package-lock.json; needs Node
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory page-types; \
	else echo "page-check: left out, for Node is not installed"; fi

page-types: node_modules/.package-lock.json
	npx tsc -p tsconfig.json
	npx tsc -p tsconfig.html.json
	$(PYTHON) tools/copy_page_libraries.py --check

node_modules/.package-lock.json: package.json package-lock.json
	npm ci --silent
	touch $@

browser:  ## installs the chromium that the tests of the page need, where the system has none
	sh tools/install_browser.sh

page-libraries:  ## copies the page's libraries in the versions of package-lock.json; needs Node
	$(PYTHON) tools/copy_page_libraries.py

bench: $(VENV)/installed-dev  ## ours against peers in one table, 5 to 10 minutes; peers that are missing are left out with a line
	$(BIN)/python benchmarks/train_step.py --rounds 7 --steps 2 --json build/train_step.json
	$(BIN)/python benchmarks/decode.py --shapes 260k,15m --json build/decode.json
	$(BIN)/python benchmarks/encode.py --rounds 3 --json build/encode.json
	$(BIN)/python benchmarks/table.py build/train_step.json build/decode.json build/encode.json

bench-full: $(VENV)/installed-dev  ## all shapes, the machine's limits and the time to quality: up to an hour
	$(BIN)/python benchmarks/limits.py --json build/limits.json
	$(BIN)/python benchmarks/train_step.py --rounds 25 --steps 2 --json build/train_step.json
	$(BIN)/python benchmarks/train_step.py --shape wide --rounds 7 --steps 2 --json build/train_step_wide.json
	$(BIN)/python benchmarks/decode.py --json build/decode.json
	$(BIN)/python benchmarks/decode.py --shapes 15m --kinds fp32 --batch 64 --json build/decode_batch.json
	$(BIN)/python benchmarks/sampling.py --json build/sampling.json
	$(BIN)/python benchmarks/encode.py --copies 48 --json build/encode.json
	$(BIN)/python benchmarks/table.py $(addprefix build/,$(addsuffix .json,limits train_step train_step_wide decode decode_batch sampling encode))
	$(BIN)/python benchmarks/prefill.py --json build/prefill.json
	$(BIN)/python benchmarks/scheduler.py --json build/scheduler.json
	$(BIN)/python benchmarks/serving.py --json build/serving.json
	$(BIN)/python benchmarks/time_to_loss.py --json build/time_to_loss.json

bench-gpu: $(VENV)/installed-dev  ## training and decoding on one NVIDIA GPU against peers; ends at once without one
	$(BIN)/python benchmarks/gpu_train.py --json build/gpu_train.json
	$(BIN)/python benchmarks/gpu_decode.py --json build/gpu_decode.json
	$(BIN)/python benchmarks/table.py build/gpu_train.json build/gpu_decode.json

scaling-laws: $(VENV)/installed-dev  ## the runs behind tinyllm fit, hours in the background; TEXTS="--text NAME=FILE" adds corpora
	setsid $(BIN)/python benchmarks/scaling_laws.py run $(TEXTS) </dev/null >build/scaling-laws.log 2>&1 &
	@echo "running in the background; follow build/scaling-laws.log, then: $(BIN)/python benchmarks/scaling_laws.py fit"

bundled-model: $(VENV)/installed-dev  ## trains the model that ships in the wheel
	$(BIN)/python tools/make_bundled_model.py

settings-page: $(VENV)/installed-dev  ## writes docs/settings.md from the config
	$(BIN)/python tools/make_settings_page.py

format: $(VENV)/installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

install: $(VENV)/installed

lock: $(BIN)/python  ## renews requirements.lock: the newest allowed versions, for every Python and system
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --universal --python-version 3.11 --upgrade --all-extras --group lock \
		--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" --quiet \
		--output-file $(LOCK) pyproject.toml

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(BIN)/python pyproject.toml $(LOCK)
	$(LOCKED) $(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed pyproject.toml $(LOCK)
	$(LOCKED) $(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@
