# What a developer, CI and buildspec.yml run. Each target sets itself up: nothing needs to be installed beforehand but
# Python 3.11 or 3.12, git and make.

VENV       ?= .venv
DOCKER     ?= docker
IMAGE      ?= multigpu-inference:local
BASE_IMAGE ?= debian:bookworm-slim

# Both optional. PYTHON is the interpreter for the environment. TORCH_INDEX_URL is an index of torch's builds: left empty, the
# image takes the CUDA build from pip's own index, and an environment on a machine without a GPU takes a CPU build.
export PYTHON TORCH_INDEX_URL

READY := $(VENV)/.ready
# Expanded when a recipe runs, so after the set-up has written java.env.
RUN    = $(shell cat $(VENV)/java.env 2>/dev/null) $(VENV)/bin/python

.DEFAULT_GOAL := help
.PHONY: help demo serve bench test test-deploy test-faults test-hostile test-page test-slow soak check format image smoke clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: $(READY) ## photos to mattes through the whole endpoint, into build/demo/
	@$(RUN) demo/run.py

serve: $(READY) ## the same endpoint and a page to try it, until Ctrl-C; MODEL=folder or model.tar.gz serves your own
	@$(RUN) demo/run.py --stay $(if $(MODEL),--model '$(MODEL)')

bench: $(READY) ## every figure that has a goal, and a report, into build/bench/; QUICK=1 for a smoke run of two minutes
	@$(RUN) -m bench suite $(if $(QUICK),--quick)

test: $(READY) ## the tests that need neither the image, nor a browser, nor a GPU, and take seconds
	@$(RUN) -m pytest

test-deploy: $(READY) ## deployments from end to end, against a stand-in for AWS and on this machine
	@$(RUN) -m pytest -m deploy tests/integration

test-faults: $(READY) ## kill, hang, fill and lose what can be, and see it go on
	@$(RUN) -m pytest -m 'faults and not soak' tests/faults

test-hostile: $(READY) ## what strangers may send, and what they must not reach
	@$(RUN) -m pytest -m 'hostile and not soak' tests/hostile

test-page: $(READY) ## the page to try it, in a headless Chromium: CHROMIUM=path, or one that is on PATH
	@$(RUN) -m pytest -m page tests/page

test-slow: $(READY) ## tests that take minutes rather than seconds
	@$(RUN) -m pytest -m slow

soak: $(READY) ## the long form of both: an hour and more
	@$(RUN) -m pytest -m soak tests

check: $(READY) ## lint, formatting, types, known vulnerabilities of what is installed; a list of that in build/sbom.cdx.json
	@$(VENV)/bin/ruff check
	@$(VENV)/bin/ruff format --check
	@$(VENV)/bin/mypy
	@$(VENV)/bin/python scripts/sbom.py build/sbom.cdx.json
	@$(VENV)/bin/python scripts/audit.py

format: $(READY) ## put the sources into their format, mend what lint can mend
	@$(VENV)/bin/ruff check --fix-only
	@$(VENV)/bin/ruff format

image: ## build the image IMAGE with DOCKER, from BASE_IMAGE
	$(DOCKER) build --provenance=false --sbom=false \
		--build-arg BASE_IMAGE=$(BASE_IMAGE) --build-arg TORCH_INDEX_URL=$(TORCH_INDEX_URL) \
		--label com.multigpu-inference.torch-build=$(notdir $(TORCH_INDEX_URL:/=)) -t $(IMAGE) .

smoke: $(READY) image ## build the image, run it, invoke it
	@env DOCKER='$(DOCKER)' IMAGE='$(IMAGE)' $(RUN) -m pytest -m image tests/image

clean: ## remove what these targets made, the environment included
	rm -rf build $(VENV) .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt scripts/setup.sh
	@scripts/setup.sh $(VENV)
	@touch $@
