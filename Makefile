# `make` or `make help` prints this file's targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ENGINES := verl sft eval
WHICH :=
RUN := examples/digits/$(if $(BASELINE),baseline,prismrun).yaml

.DEFAULT_GOAL := help
.PHONY: help setup run test test-engines cluster cluster-down images generate lint lock clean

help: ## Show this
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(STAMP) ## Install the locked environment into .venv

$(STAMP): requirements/dev.txt operator/pyproject.toml trainer/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' \
	  || { echo "$$($(PYTHON) --version) found, Python 3.11 or 3.12 is needed: make PYTHON=python3.12 ..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --no-deps --require-hashes -r requirements/dev.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e trainer -e operator
	@touch $@

# verl, LLaMA-Factory and lmms-eval exclude each other's versions: an environment each, for the tests, without the libraries of a GPU.
.venv-%/.installed: requirements/%-cpu.txt requirements/wheel.txt images/trainer-cpu/cpu_only.py $(STAMP)
	@rm -rf .venv-$*  # DeepSpeed is built from source, and only where torch is not there yet
	$(PYTHON) -m venv --without-pip .venv-$*
	@$(BIN)/python images/trainer-cpu/cpu_only.py lock $< .venv-$*/cpu.txt
	$(BIN)/uv pip install --quiet --python .venv-$*/bin/python --no-deps --require-hashes -r requirements/wheel.txt
	DS_BUILD_OPS=0 $(BIN)/uv pip install --quiet --compile-bytecode --python .venv-$*/bin/python --no-deps --no-build-isolation --require-hashes -r .venv-$*/cpu.txt
	$(BIN)/uv pip install --quiet --python .venv-$*/bin/python --no-deps --no-build-isolation -e trainer
	@site=$$(.venv-$*/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
	  $(BIN)/python images/trainer-cpu/cpu_only.py libraries $$site; \
	  test $* = sft || $(BIN)/python images/trainer-cpu/cpu_only.py vllm $$site
	@touch $@

run: $(STAMP) ## Run PRISM on handwritten digits: about 10 minutes on 2 cores (BASELINE=1 adds sft -> rlvr)
	@$(BIN)/python examples/digits/build.py runs/digits
	@$(BIN)/prism run $(RUN) --redo

test: $(STAMP) ## Run every test that this machine can run, but the longest of engine verl
	@$(BIN)/python -m pytest
	@if command -v gcc readelf >/dev/null; then $(MAKE) --no-print-directory test-engines WHICH="not long"; \
	  else echo "The tests of engine verl are left out: their environments are made with gcc and readelf, and this machine lacks one."; fi

test-engines: $(ENGINES:%=.venv-%/.installed) ## Run all tests of engine verl, each library in its own environment, then a run through all of them
	@for engine in $(ENGINES); do .venv-$$engine/bin/python -m pytest -W default -m "$(WHICH)" tests/engines/$$engine || exit 1; done
	@$(BIN)/python -m pytest -m "$(WHICH)" tests/engines/line

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
	  $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url $$(test ! -f $${file%.in}.overrides || echo --overrides $${file%.in}.overrides) $$file -o $${file%.in}.txt; \
	done

clean: ## Remove the environment and all runs
	rm -rf $(VENV) $(ENGINES:%=.venv-%) runs
