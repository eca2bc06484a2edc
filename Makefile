# `make` lists the targets. Everything runs from .venv, which is built once and again when its inputs change.
PYTHON ?= python3
PORT ?= 8000

BIN := .venv/bin
STAMP := .venv/.built

.DEFAULT_GOAL := help
.PHONY: help demo test test-full lint format bench docs mutants audit lock clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# What is locked comes as wheels with the hashes in requirements/, the build backend too. torch has none: which build there is for
# this machine's CPU or CUDA, and which CUDA libraries it brings, differs. It comes last, so that it brings nothing else.
$(STAMP): pyproject.toml constraints.txt requirements/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Dubio needs Python 3.11 or newer, but '$(PYTHON)' is not; try: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --only-binary :all: --no-deps --require-hashes -r requirements/dev.txt
	$(BIN)/pip install -c constraints.txt torch
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	@$(BIN)/pip check
	@touch $@

# The trap lets Ctrl-C end the demo, not the recipe: make then stops without reporting an error.
demo: $(STAMP)  ## Train on digits, serve the model on PORT (8000) and ask it a few questions; Ctrl-C ends
	@trap 'exit 0' INT; $(BIN)/python examples/demo.py --port $(PORT)

# pyproject.toml has the gate over everything; what promises and what opens strange files has to be covered to the last branch.
test: $(STAMP)  ## Run the tests, without the slow ones, and check what they cover
	$(BIN)/pytest -n 2 -m "not slow" --cov --cov-report=term
	@$(BIN)/coverage report --fail-under=100 --include='uncertainty/detection/conformal.py,models/checkpoint/*'

test-full: $(STAMP)  ## Run all tests
	$(BIN)/pytest -n 2

lint: $(STAMP)  ## Check style, types and the direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(STAMP)  ## Rewrite the code in the house style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(STAMP)  ## Measure the committee against the textbook loop
	$(BIN)/python benchmarks/engine.py

docs: $(STAMP)  ## Build the documentation into site/, and check every link, path and test that it names
	$(BIN)/python docs/check_links.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet  # the pin keeps MkDocs 1

mutants: $(STAMP)  ## Change the code in small ways and see whether tests fail; SAMPLE=100 and FILES="..." choose
	$(BIN)/python tests/mutants.py $(if $(SAMPLE),--sample $(SAMPLE)) $(FILES)

audit: $(STAMP)  ## List what is installed in build/sbom.json, and look for known vulnerabilities (needs the network)
	PYTHON=$(PYTHON) .ci/sbom
	PYTHON=$(PYTHON) .ci/audit

lock:  ## Write requirements/ anew from constraints.txt: versions with hashes (needs the network)
	PYTHON=$(PYTHON) .ci/lock

clean:  ## Remove caches and build outputs; runs/ and .venv stay
	rm -rf build dist site .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
