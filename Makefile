# Two commands on a fresh machine: `make demo` and `make test`. Needs git, make and Python 3.11 or 3.12.
SHELL := /bin/bash
.DEFAULT_GOAL := help
UV := $(or $(shell command -v uv),.tools/bin/uv)
UV_VERSION := 0.13.9
RUN := .venv/bin
# Much of the suite waits for servers to start: two processes, dealt by what tests share (tests/conftest.py).
IN_TWO := -n 2 --dist loadscope --no-loadscope-reorder
# Hospital networks often end TLS in a proxy with a certificate of their own: trust what the machine trusts.
export UV_SYSTEM_CERTS := true

.PHONY: help demo up test test-fast lint format bench bench-data bench-decode bench-quality bench-statistics screenshots recordings clean

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: .venv/.ready  ## Run the whole loop in small, in .osteoflow/demo
	@$(RUN)/osteoflow demo

up: .venv/.ready  ## Serve MLflow, Prefect and the clinic page (the demo's, when this clone has no data yet)
	@$(RUN)/osteoflow up

test: lint  ## Lint, types and the whole test suite
	$(RUN)/pytest $(IN_TWO)

test-fast: .venv/.ready  ## The tests that take under ten seconds each
	$(RUN)/pytest $(IN_TWO) -m "not slow"

lint: .venv/.ready  ## ruff, mypy, and a lock file that matches pyproject.toml
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy
	$(UV) lock --check --quiet

format: .venv/.ready  ## Format and sort imports
	$(RUN)/ruff check --fix .
	$(RUN)/ruff format .

bench: .venv-bench/.ready  ## Time a prediction beside what a team would otherwise call
	.venv-bench/bin/python -m tests.benchmarks.serving

bench-data: .venv/.ready  ## Grow archives of several sizes by 100 images, beside one file an image (SIZES=1000,10000)
	$(RUN)/python -m tests.benchmarks.data $(if $(SIZES),--sizes $(SIZES))

bench-decode: .venv/.ready  ## Time every installed decoder on one frame in every transfer syntax
	$(RUN)/python -m tests.benchmarks.decode

bench-quality: .venv-bench/.ready  ## Find planted defects beside cleanvision (in an environment of its own)
	.venv-bench/bin/python -m tests.benchmarks.quality

bench-statistics: .venv/.ready  ## Time intervals over 100,000 images beside a loop over scikit-learn
	$(RUN)/python -m tests.benchmarks.statistics

screenshots: .venv/.ready  ## Photograph the demo's pages and a reviewer's work for the README (needs Chromium and a finished demo)
	$(RUN)/python docs/screenshots.py
	$(RUN)/pytest tests/promotion/test_reviewer.py --screenshots=docs/images

recordings: .venv/.ready  ## Record intake from a real S3-compatible store and a real PACS (needs the packages of .ci/run)
	@$(RUN)/python docs/record.py

clean:  ## Remove the environment and the demo; data versions and this clone's own state stay
	rm -rf .venv .venv-bench .tools .osteoflow/demo

# The environment follows the lock: a changed lock re-syncs, an unchanged one costs nothing.
.venv/.ready: uv.lock pyproject.toml | $(filter .tools/bin/uv,$(UV))
	$(UV) sync --frozen --compile-bytecode --quiet
	@touch $@

# Peers to measure against are heavy, and nothing that the product runs.
.venv-bench/.ready: uv.lock pyproject.toml | $(filter .tools/bin/uv,$(UV))
	UV_PROJECT_ENVIRONMENT=.venv-bench $(UV) sync --frozen --group bench --quiet
	@touch $@

# No uv on this machine: a copy of our own, inside the project, from the package index.
.tools/bin/uv:
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or 3.12 is needed"; exit 1; }
	@echo "Setting up uv in .tools"
	@python3 -m venv .tools 2>/dev/null && .tools/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION) \
	  || { rm -rf .tools; python3 -m pip install --quiet --target .tools uv==$(UV_VERSION); } \
	  || { echo "neither venv nor pip works with this python3 (Debian: apt install python3-venv)"; exit 1; }
