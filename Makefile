# The one door. Plain make, no GNU make newer than 3.81 needed.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/.setup-done
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup demo test check audit lint format types imports browser roads test-slow test-gpu wheel clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' Makefile

setup: $(STAMP) ## make .venv and install everything, once; again when the pins change

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else "fewlabels needs Python 3.11 to 3.13, this is %d.%d; try: make setup PYTHON=python3.12" % v)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints.txt
	@touch $(STAMP)

demo: $(STAMP) ## the main job on the built-in digits; ends with the verdict and the report's path
	$(BIN)/fewlabels demo --out runs/demo

test: lint types imports browser ## what CI runs: lint, types, import contracts, all tests not slow or gpu
	$(BIN)/python -m pytest -q -n $(WORKERS)

check: lint types imports audit ## the quick loop while working: the same with the quick tests only, no docstrings' examples
	$(BIN)/python -m pytest -q -n $(WORKERS) -m "not slow and not gpu and not medium" tests

# Where it cannot ask it says so, and fails for nothing but a known weakness.
audit: $(STAMP) ## pinned versions with known weaknesses, by pip-audit; skipped without a network
	@if ! test -x $(BIN)/pip-audit; then \
	  echo "pip-audit is not installed: the pinned versions were NOT AUDITED"; \
	elif ! $(BIN)/python -c 'import urllib.request as u; u.urlopen("https://pypi.org/pypi/pip/json", timeout=10)' >/dev/null 2>&1; then \
	  echo "pypi.org does not answer: the pinned versions were NOT AUDITED"; \
	else \
	  said=$$($(BIN)/pip-audit --progress-spinner off --no-deps --disable-pip -r constraints.txt 2>&1); \
	  ended=$$?; \
	  unknown=$$(printf '%s\n' "$$said" | grep -c "could not be audited"); \
	  printf '%s\n' "$$said" | grep -v "could not be audited\|^WARNING\|^Name  *Skip\|^-[- ]*$$"; \
	  test "$$unknown" = 0 || echo "$$unknown of the pinned versions were NOT AUDITED: the index does not know them"; \
	  exit $$ended; \
	fi

lint: $(STAMP) ## ruff: rules and format
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .

format: $(STAMP) ## let ruff format and fix what it can
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format --quiet .

types: $(STAMP) ## mypy, strict on src and benchmarks
	$(BIN)/mypy

imports: $(STAMP) ## import contracts: which floor may import which
	$(BIN)/lint-imports

# Report tests need a Chromium; without one they say that they are skipped.
# Installed only where that needs no question: as root with apt-get (a CI container).
browser:
	@for name in chromium chromium-browser google-chrome; do \
	  if command -v $$name >/dev/null 2>&1; then exit 0; fi; \
	done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
	  { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } >/dev/null 2>&1 \
	    || echo "chromium could not be installed: browser tests will be skipped"; \
	else \
	  echo "no chromium found: browser tests will be skipped"; \
	fi

roads: $(STAMP) ## travel every recipe at a small budget; needs FEWLABELS_DATA, a folder of unpacked data sets
	$(BIN)/python benchmarks/roads.py

test-slow: $(STAMP) ## tests that take minutes: training to a stated accuracy, wheel, kill and resume
	$(BIN)/python -m pytest -q -m "slow and not gpu"

test-gpu: $(STAMP) ## tests that need an accelerator
	$(BIN)/python -m pytest -q -m gpu

wheel: $(STAMP) ## build the wheel into dist/
	$(BIN)/python -m build --wheel

clean: ## remove build output and tool caches (never runs/ or .venv)
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
