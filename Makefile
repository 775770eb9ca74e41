# Every command of the project; `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
KEEP ?=
SEED ?=
CASE ?=
VIRTUAL ?=

.PHONY: help
help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## The main job: real Airflow on a real node (root on Linux), else a virtual one (SEED=n, KEEP=1, VIRTUAL=1)
	@if [ -z "$(VIRTUAL)" ]; then sh tests/testbed/install-packages.sh --demo || echo 'Without them the demo is a virtual one.'; fi
	@$(MAKE) --no-print-directory $(READY)
	@SEED=$(SEED) KEEP=$(KEEP) VIRTUAL=$(VIRTUAL) $(BIN)/python -m testbed.demo

.PHONY: demo-docker
demo-docker: ## Airflow under docker compose on an engine of its own, and the tuner beside it (root on Linux; SEED=n, KEEP=1)
	@sh tests/testbed/install-packages.sh
	@$(MAKE) --no-print-directory $(READY)
	@SEED=$(SEED) KEEP=$(KEEP) $(BIN)/python -m testbed.docker_demo

.PHONY: test
test: $(READY) ## All tests this machine can run; says what it skips and why
	@$(BIN)/python -m pytest $(PYTEST)

.PHONY: system
system: ## Install the Debian packages of packages.txt (root)
	@sh tests/testbed/install-packages.sh

.PHONY: lint
lint: $(READY) ## ruff, import-linter, generated files, lock files
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/airflow-tuner crd --check crds
	@$(BIN)/airflow-tuner crd --check charts/airflow-tuner/files
	@$(BIN)/airflow-tuner reference --check docs/policy-reference.md
	@$(BIN)/airflow-tuner replay --reference | diff - docs/replay-lines.md
	@if grep -nE '(https?|ssh)://' requirements/*; then echo 'lock files must carry no addresses'; exit 1; fi

.PHONY: type
type: $(READY) ## mypy --strict
	@$(BIN)/mypy

.PHONY: crd
crd: $(READY) ## Generate crds/, the policy reference and replay's from the models
	@$(BIN)/airflow-tuner crd --write crds
	@$(BIN)/airflow-tuner reference > docs/policy-reference.md
	@$(BIN)/airflow-tuner replay --reference > docs/replay-lines.md

.PHONY: chart
chart: crd ## Copy the generated definitions into the chart, and lint it
	@cp crds/*.yaml charts/airflow-tuner/files/
	@$(BIN)/python -m pytest -q tests/chart

.PHONY: bench
bench: $(READY) ## The tuner against its peers in the fleet model (SCENARIO, CONTROLLER, DAYS, SEEDS, ABLATION, JOBS, PAGE=1)
	@PYTHONPATH=.:controller $(BIN)/python -m benchmarks --scenario "$(SCENARIO)" --controller "$(CONTROLLER)" --seeds "$(or $(SEEDS),report)" \
	  --ablation "$(ABLATION)" --jobs "$(or $(JOBS),1)" $(if $(DAYS),--days $(DAYS)) $(if $(PAGE),--page)

.PHONY: scale
scale: $(READY) ## What a turn costs with weeks of history, and a thousand Airflows side by side
	@PYTHONPATH=.:controller $(BIN)/python -m benchmarks.scale

.PHONY: prove
prove: $(READY) ## A long experiment: CASE=name (without CASE: lists them); figures go to docs/evidence/
	@$(BIN)/python -m testbed.prove $(CASE)

.PHONY: lock
lock: $(READY) ## Resolve the dependencies anew
	@compile() { $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header "$$@"; }; \
	compile pyproject.toml -o requirements/runtime.txt; \
	compile pyproject.toml --group dev -o requirements/dev.txt; \
	for airflow in 2.11.2 3.3.2; do compile requirements/airflow-$$airflow.in -o requirements/airflow-$$airflow.txt; done

$(READY): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name it with PYTHON=python3.11")'
	@echo 'Installing the Python packages of requirements/dev.txt into .venv (about a minute)'
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
