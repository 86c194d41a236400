# `make` or `make help` prints this file's targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
RUN := examples/digits/$(if $(BASELINE),baseline,prismrun).yaml

# They were run one by one, and not yet in one piece on an idle machine; until then they are a target of their own.
NODE_TESTS := $(addprefix tests/cluster/,faults test_chart_install.py test_harness.py test_kubectl_prism.py test_real_runs.py)

.DEFAULT_GOAL := help
.PHONY: help setup run test test-node cluster cluster-down images generate lint lock clean

help: ## Show this
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(STAMP) ## Install the locked environment into .venv

$(STAMP): requirements/dev.txt operator/pyproject.toml trainer/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' \
	  || { echo "$$($(PYTHON) --version) found, Python 3.11 or 3.12 is needed: make PYTHON=python3.12 ..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r requirements/dev.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e trainer -e operator
	@touch $@

run: $(STAMP) ## Run PRISM on handwritten digits: about 10 minutes on 2 cores (BASELINE=1 adds sft -> rlvr)
	@$(BIN)/python examples/digits/build.py runs/digits
	@$(BIN)/prism run $(RUN) --redo

test: $(STAMP) ## Run every test that needs no node: unit, model, pipeline, and the cluster's definitions on a real API server
	@$(BIN)/python -m pytest $(addprefix --ignore=,$(NODE_TESTS))

test-node: $(STAMP) ## Run the tests that need a whole cluster: root, Linux and Go, or PRISM_TEST_KUBECONFIG; half an hour
	@$(BIN)/python -m pytest $(NODE_TESTS)

lint: $(STAMP) ## Format, style, types, layers
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy && $(BIN)/lint-imports

lock: $(STAMP) ## Resolve requirements/*.in again, with hashes
	@for file in requirements/*.in; do \
	  $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url $$([ $$file = requirements/dev.in ] && echo --overrides requirements/overrides.txt) $$file -o $${file%.in}.txt; \
	done

clean: ## Remove the environment and all runs
	rm -rf $(VENV) runs
