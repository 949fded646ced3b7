# The whole house work. Every target sets up .venv by itself (bootstrap.sh; nothing to do: some milliseconds).
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help setup demo test nightly bench lint lock clean

BIN := .venv/bin
SIZE ?= medium
LIMIT := $(firstword $(shell command -v timeout gtimeout))

# $(call limit,<budget in seconds>): twice that, then exit 124; a nightly run has twenty times the counts
limit = $(if $(LIMIT),$(LIMIT) --verbose --kill-after=10 $$(( 2 * $(1) * $(SCALE) )))
SCALE := $(if $(filter nightly,$(CHIPMILL_PROFILE)),20,1)

help:  ## this list
	@awk -F ':.*## *' '/^[a-z]+:.*##/ { printf "  make %-9s%s\n", $$1, $$2 }' Makefile

setup:
	@sh bootstrap.sh

demo: setup  ## a simulated region from archive to map and report; SIZE=small|medium|large
	@$(BIN)/chipmill demo --size $(SIZE)

# Tier = its budget in seconds on two cores that another tier shares, its folders, options of pytest. Two tiers run at a
# time: most wait for processes that they started. Long ones come first, the longest beside lint.
tier-services := 600 tests/services tests/ui
tier-unit := 300 tests/unit tests/properties --numprocesses=2 --dist=loadfile
tier-e2e := 300 tests/e2e
tier-faults-flow := 360 tests/faults/flow
tier-flows := 180 tests/tasks tests/flows
tier-learning := 180 tests/learning
tier-oracle := 200 tests/oracle
tier-faults-store := 150 tests/faults/store
tier-faults-http := 120 tests/faults/http
tier-examples := 150 tests/examples
tier-torch := 60 tests/torch
TIERS := unit e2e faults-flow flows learning oracle faults-store faults-http examples \
	$(if $(filter nightly,$(CHIPMILL_PROFILE)),torch)

test: setup  ## lint and every test, two tiers at a time, each within its time
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target test-services lint $(TIERS:%=test-%)

# test-<tier>: its tests, stopped at twice the budget, with the ten slowest at the end
test-%: setup
	@set -- $(tier-$*); budget=$$1; shift; echo "== $*: budget $$budget s"; \
	$(call limit,$$budget) $(BIN)/python -m pytest --durations=10 "$$@"

nightly:  ## the same tests with larger counts
	@CHIPMILL_PROFILE=nightly $(MAKE) --no-print-directory test

bench: setup  ## every benchmark, printed as ratios
	@$(BIN)/python -m benchmarks all

lint: setup  ## format, lint, types, order of the rooms
	@echo "== lint: budget 90 s"
	@$(call limit,90) sh -ec '$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy && $(BIN)/lint-imports'

# Constraints keep the images on the versions that the tests ran with. No index is named in what is written.
LOCK := $(BIN)/uv pip compile --quiet --python-version 3.12 --universal --generate-hashes \
	--no-emit-index-url --no-annotate --custom-compile-command "make lock" --upgrade
LOCK_IMAGE := $(LOCK) --constraints requirements.lock
lock: setup  ## newest versions within the bounds of pyproject.toml into the lock files
	$(LOCK) pyproject.toml --extra train --extra notebook --group test --group lint --group bench --group build -o requirements.lock
	$(LOCK_IMAGE) pyproject.toml -o docker/worker.lock
	$(LOCK_IMAGE) pyproject.toml --extra gpu -o docker/gpu.lock
	$(LOCK_IMAGE) --group build -o docker/build.lock

clean:  ## forget the set-up and all caches; outputs stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
