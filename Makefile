# The list of developer commands. `make` alone prints it. Every target works from a fresh clone:
# what it needs is installed into .venv on first use.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
VECTORS := $(wildcard tools/make*_vectors.py)
.DEFAULT_GOAL := help

.PHONY: help setup demo test test-long soak lint format check bench bench-peers e2e calibration fuzz \
	mutation vectors vectors-check docs docs-check pictures sample-data build clean

help: ## Print this list.
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(VENV)/.test ## Install kvq and the development tools into .venv.

demo: $(VENV)/.run ## Compress, verify, measure and restore the sample capture.
	@KVQ=$(BIN)/kvq sh sample_data/demo.sh

test: lint vectors-check docs-check ## Run every check and test but the long ones.
	@$(BIN)/python -m pytest -q -n 2 -m "not long"

test-long: $(VENV)/.test ## Run the long tests; KVQ_CAPTURES=DIR adds captures of your own.
	@$(BIN)/python -m pytest -q -m long

soak: $(VENV)/.test ## Ten thousand captures while processes are killed; SOAK="--first 0 --captures 2500".
	@$(BIN)/python tests/soak.py $(SOAK)

lint: $(VENV)/.test ## Check style, types and the direction of imports.
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo > $(VENV)/imports.log || { cat $(VENV)/imports.log; exit 1; }

format: $(VENV)/.test ## Let ruff format the code and mend what it can.
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

check: test ## All that CI runs.

bench: $(VENV)/.test ## Measure speed against what a user has without kvq; BENCH="peers --quick" and such.
	@$(BIN)/python -m benchmarks $(BENCH)

bench-peers: $(VENV)/.test ## Install other packages into .venv-peers and measure kvq next to them.
	@$(BIN)/python benchmarks/make_peers.py
	@$(BIN)/python -m benchmarks peers $(BENCH)

e2e: ## Measure what profiles do to a real model's perplexity; E2E="--model qwen" and such.
	@$(PYTHON) benchmarks/make_e2e.py
	@PYTHONPATH=sample_data .venv-e2e/bin/python -m benchmarks.e2e $(E2E)

calibration: ## Capture other texts with real models and calibrate transform; CALIBRATION="--model qwen".
	@$(PYTHON) benchmarks/make_e2e.py
	@PYTHONPATH=sample_data .venv-e2e/bin/python -m benchmarks.make_calibration $(CALIBRATION)

fuzz: ## Fuzz what kvq reads, a minute each target; FUZZ="chunks --seconds 600" and such.
	@$(PYTHON) fuzzing/make_fuzz.py
	@.venv-fuzz/bin/python -m fuzzing $(FUZZ)

mutation: $(VENV)/.test ## See whether tests notice small faults; MUTATION="container/index --sample 50" and such.
	@$(BIN)/python -m mutating $(MUTATION)

vectors: $(VENV)/.test ## Write the conformance vectors; only after the spec changed.
	@for tool in $(VECTORS); do $(BIN)/python $$tool || { echo "$$tool failed"; exit 1; }; done

vectors-check: $(VENV)/.test ## Check that the vectors are what their recipes make.
	@for tool in $(VECTORS); do \
		$(BIN)/python $$tool --check || { echo "$$tool: make vectors"; exit 1; }; \
	done

docs: $(VENV)/.test ## Write the generated parts of README.md, docs/ and sample_data/README.md.
	@$(BIN)/python tools/make_docs.py

docs-check: $(VENV)/.test ## Check that they are what they should be, and the synthetic sample too.
	@$(BIN)/python tools/make_docs.py --check
	@$(BIN)/python tools/make_sample_data.py --check

pictures: $(VENV)/.test ## Draw the pictures of the README from measurements of the sample.
	@$(BIN)/python tools/make_pictures.py

sample-data: $(VENV)/.test ## Write the synthetic sample capture.
	@$(BIN)/python tools/make_sample_data.py

build: $(VENV)/.test ## Build wheel and sdist into dist/.
	@$(BIN)/python -m build --no-isolation --outdir dist . > $(VENV)/build.log || { cat $(VENV)/build.log; exit 1; }
	@ls dist

clean: ## Remove .venv, caches and what was built.
	@rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Installed once, and again when pyproject.toml changes.
$(VENV)/.run: pyproject.toml
	@echo "setting up $(VENV): kvq and what it needs (once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --editable .
	@$(BIN)/python -m compileall -q kvq_cli  # where PYTHONDONTWRITEBYTECODE is set, nothing else does
	@touch $@

$(VENV)/.test: $(VENV)/.run
	@echo "setting up $(VENV): development tools (once)"
	@$(PIP) install --editable '.[test]'
	@touch $@
