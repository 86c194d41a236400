# `make` or `make help` prints this file's targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
RUN := examples/digits/$(if $(BASELINE),baseline,prismrun).yaml

.DEFAULT_GOAL := help
.PHONY: help setup run test cluster cluster-down images generate lint lock clean

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

test: $(STAMP) ## Run every test that this machine can run
	@$(BIN)/python -m pytest

cluster: $(STAMP) ## Start a real Kubernetes with KubeRay on this machine (root, Go)
	@cd tests && ../$(BIN)/python -m cluster.harness up

cluster-down: $(STAMP) ## End it, without a trace
	@cd tests && ../$(BIN)/python -m cluster.harness down

images: $(STAMP) ## Build the project's images again for the running test cluster
	@cd tests && ../$(BIN)/python -m cluster.harness images

generate: $(STAMP) ## Write the CRD anew from the pydantic models
	@$(BIN)/python -m prism_operator.crdgen crds/prismruns.prism.dev.yaml charts/prism/files/crds/prismruns.prism.dev.yaml

lint: $(STAMP) ## Format, style, types, layers
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy && $(BIN)/lint-imports

lock: $(STAMP) ## Resolve requirements/*.in again, with hashes
	@for file in requirements/*.in; do \
	  $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url $$([ $$file = requirements/dev.in ] && echo --overrides requirements/overrides.txt) $$file -o $${file%.in}.txt; \
	done

clean: ## Remove the environment and all runs
	rm -rf $(VENV) runs
