# Run `make demo` for the support desk. Requires Python 3.11 or 3.12, make and a package index, but no root and no key.

.DEFAULT_GOAL := help
SHELL := /bin/sh
PY := .venv/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
# Index with CPU builds of torch. The default build for Linux includes CUDA, about 3 GB more.
TORCH_INDEX ?=
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
# The extras in the image of each runtime. The prompt and the pipeline need none.
RUNTIME ?= all
REGISTRY ?=
EXTRAS_all := all,postgres,mysql
EXTRAS_memory := postgres,mysql
EXTRAS_classifier := classifier
EXTRAS_local := transformers
EXTRAS_api := openai
EXTRAS_prompt := pipeline
EXTRAS_pipeline := pipeline

.PHONY: help demo serve test check format docs train-demo-model chaos fuzz bench-memory bench-pipeline image clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-18s %s\n", $$1, $$2}' Makefile

demo: .venv/installed-all ## Hold three conversations with the support desk
	@.venv/bin/python -m mlserver_llm_cli.main check models
	@$(PY) examples/demo.py

serve: .venv/installed-all ## Run the support desk on 127.0.0.1:8080
	@.venv/bin/python -m mlserver_llm_cli.main check models
	@$(PY) examples/serve.py

test: .venv/installed-dev ## Run all tests, offline
	@$(PY) -m pytest

check: .venv/installed-dev ## Check lint, format, types, generated documentation and commit subjects
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m pyright
	@$(PY) docs/generate.py --check
	@.venv/bin/hadolint Dockerfile
	@$(PY) .ci/commit-subjects

format: .venv/installed-dev ## Format the code and sort the imports
	@$(PY) -m ruff check --fix -q .
	@$(PY) -m ruff format -q .

docs: .venv/installed-dev ## Regenerate the settings tables and schemas in docs/
	@$(PY) docs/generate.py

chaos: .venv/installed-dev ## Kill servers and databases during 10,000 appends per store; fail if a message is lost or doubled
	@$(PY) tests/memory_chaos.py

fuzz: .venv/installed-dev ## Fuzz the support desk over REST and gRPC for an hour (FUZZ_SECONDS=, FUZZ_SEED=)
	@FUZZ_SECONDS=$${FUZZ_SECONDS:-3600} FUZZ_SEED=$${FUZZ_SEED:-$$(date +%s)} $(PY) -m pytest -s tests/security/test_fuzz.py

bench-memory: .venv/installed-dev ## Compare the speed of the memory with other libraries (about ten minutes)
	@$(PY) benchmarks/memory/run.py

bench-pipeline: .venv/installed-dev ## Compare the speed of the pipeline and the support desk with LangGraph
	@$(PY) benchmarks/pipeline/run.py

train-demo-model: .venv/installed-all ## Retrain models/support-tiny (up to 90 minutes on 2 cores)
	@$(PY) -m training.support_tiny.train

image: ## Build mlserver-llm-RUNTIME: all, memory, classifier, local, api, prompt or pipeline (RUNTIME=, REGISTRY=host/)
	$(if $(EXTRAS_$(RUNTIME)),,$(error RUNTIME is all, memory, classifier, local, api, prompt or pipeline))
	docker build -t $(REGISTRY)mlserver-llm-$(RUNTIME):$(VERSION) --build-arg RUNTIME=$(RUNTIME) \
	  --build-arg EXTRAS=$(EXTRAS_$(RUNTIME)) --build-arg TORCH_INDEX=$(TORCH_INDEX) \
	  --build-arg VERSION=$(VERSION) --build-arg REVISION=$$(git rev-parse HEAD) .

clean: ## Remove the virtual environment and local data
	rm -rf .venv .data

.venv/bin/python:
	@for python in python3.12 python3.11 python3; do \
	  if "$$python" -c 'import sys, venv; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null; then \
	    exec "$$python" -m venv .venv; \
	  fi; \
	done; \
	echo "Python 3.12 or 3.11 (with venv) was not found. Install one of them and run make again." >&2; exit 1

.venv/installed-all: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing into .venv, once: about 1.5 GB with a CPU build of torch, one to five minutes."
	@$(PIP) install -q -c constraints.txt $(if $(TORCH_INDEX),--index-url "$(TORCH_INDEX)") torch
	@$(PIP) install -q -c constraints.txt -e '.[all]'
	@touch .venv/installed-all

.venv/installed-dev: .venv/installed-all
	@echo "Installing the tools for tests and checks."
	@$(PIP) install -q -c constraints.txt -e '.[dev]'
	@touch .venv/installed-dev
