# The whole house work. Every target sets up .venv by itself (bootstrap.sh; nothing to do: some milliseconds).
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help setup demo test nightly bench lint lock clean

BIN := .venv/bin
SIZE ?= medium
LIMIT := $(firstword $(shell command -v timeout gtimeout))

# $(call tier,<name>,<budget in seconds>,<folders>,<options>): the tests of those folders that exist, stopped at twice
# the budget, with the ten slowest at the end
define tier
@set -e; dirs=; for dir in $(3); do [ ! -d "$$dir" ] || dirs="$$dirs $$dir"; done; [ -n "$$dirs" ] || exit 0; \
echo "== $(1): budget $(2) s"; \
$(call limit,$(2)) $(BIN)/python -m pytest --durations=10 $(4) $$dirs
endef

# $(call limit,<budget in seconds>): twice that, then exit 124; a nightly run has twenty times the counts
limit = $(if $(LIMIT),$(LIMIT) --verbose --kill-after=10 $$(( 2 * $(1) * $(SCALE) )))
SCALE := $(if $(filter nightly,$(CHIPMILL_PROFILE)),20,1)

help:  ## this list
	@awk -F ':.*## *' '/^[a-z]+:.*##/ { printf "  make %-9s%s\n", $$1, $$2 }' Makefile

setup:
	@sh bootstrap.sh

demo: setup  ## a simulated region from archive to map and report; SIZE=small|medium|large
	@$(BIN)/chipmill demo --size $(SIZE)

test: setup lint  ## every test, tier by tier, each within its time
	$(call tier,unit and properties,80,tests/unit tests/properties,--numprocesses=2 --dist=loadfile)
	$(call tier,oracle and real data,50,tests/oracle)
	$(call tier,examples,30,tests/examples)
	$(call tier,tasks and flows,120,tests/tasks tests/flows)
	$(call tier,faults: http,40,tests/faults/http)
	$(call tier,faults: store,60,tests/faults/store)
	$(call tier,faults: flow,240,tests/faults/flow)
	$(call tier,learning,120,tests/learning)
	$(call tier,services and ui,300,tests/services tests/ui)
	$(call tier,end to end,200,tests/e2e)

nightly:  ## the same tests with larger counts
	@CHIPMILL_PROFILE=nightly $(MAKE) --no-print-directory test

bench: setup  ## every benchmark, printed as ratios
	@$(BIN)/python -m benchmarks all

lint: setup  ## format, lint, types, order of the rooms
	@echo "== lint: budget 45 s"
	@$(call limit,45) sh -ec '$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy && $(BIN)/lint-imports'

# Constraints keep the images on the versions that the tests ran with. No index is named in what is written.
LOCK := $(BIN)/uv pip compile --quiet --python-version 3.12 --universal --generate-hashes \
	--no-emit-index-url --no-annotate --custom-compile-command "make lock" --upgrade
LOCK_IMAGE := $(LOCK) --constraints requirements.lock
lock: setup  ## newest versions within the bounds of pyproject.toml into the lock files
	$(LOCK) pyproject.toml --extra train --group test --group lint --group bench --group build -o requirements.lock
	$(LOCK_IMAGE) pyproject.toml -o docker/worker.lock
	$(LOCK_IMAGE) pyproject.toml --extra gpu -o docker/gpu.lock
	$(LOCK_IMAGE) --group build -o docker/build.lock

clean:  ## forget the set-up and all caches; outputs stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
