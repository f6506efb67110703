# What you type. `make help` lists it; everything sets itself up and re-uses what is there.
PYTHON ?= python3
SCENARIO ?= scenarios/quickstart.yaml
DEVICE ?= auto
RUN = .venv/bin/servetune
SETUP = .venv/.requirements.lock

.DEFAULT_GOAL := help
.PHONY: help setup engines model variants bench search search-bench demo plan doctor test check conformance bench-client rivals bench-rivals mutants gpu-pack lock

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(SETUP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'error: Python 3.11 or newer is needed; found '"$$($(PYTHON) --version)"; \
		  echo 'hint: make PYTHON=/path/to/python3.11 ...'; exit 2; } >&2
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@echo 'installing servetune into .venv (pinned by requirements.lock)' >&2
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@cp requirements.lock $(SETUP)

setup: $(SETUP) ## servetune itself, in .venv

engines: $(SETUP) ## the engines, each in .engines/<name>-<version> (CUDA builds where there is a GPU)
	@.venv/bin/python -m serving.install.environments install vllm transformers --device $(DEVICE)

model: engines ## the small model of the quick start, in .models
	@.venv/bin/python tools/make_model.py

variants: model ## quantized checkpoints of the small model (llm-compressor, in an environment of its own)
	@.venv/bin/python tools/make_variants.py

bench: variants ## measure SCENARIO (default: the quick start) on real engines, to a report
	@$(RUN) bench $(SCENARIO)

search-bench: $(SETUP) ## searchers against each other on the recorded grids (200 seeds, about ten minutes on two cores)
	@.venv/bin/servetune replay results/reference/sim-* --seeds 200 \
		--sampler surrogate,surrogate-plain,optuna-tpe,hill,random --json replay.json

search: variants ## look for the best configuration of SCENARIO (default: on this CPU, about half an hour)
	@$(RUN) search $(if $(filter file,$(origin SCENARIO)),scenarios/search-cpu.yaml,$(SCENARIO))

demo: $(SETUP) ## scenario to report on the simulated engine, under 30 s
	@$(RUN) bench scenarios/demo.yaml

plan: $(SETUP) ## what SCENARIO would run
	@$(RUN) plan $(SCENARIO)

doctor: $(SETUP) ## what this machine can run, and why not
	@$(RUN) doctor

test: variants ## every test, real engines included
	@.venv/bin/python -m pytest

check: $(SETUP) ## lint, types, imports
	@.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy && .venv/bin/lint-imports && .venv/bin/python tools/layers.py

conformance: $(SETUP) ## the load client against a server whose timings are known, case by case
	@.venv/bin/python tools/conformance.py

bench-client: $(SETUP) ## our client's error and CPU beside plain aiohttp and httpx clients
	@.venv/bin/python tools/bench_client.py

RIVALS = guidellm-0.8.1 aiperf-0.13.0

.engines/rivals/%/installed:
	@echo 'installing $* to compare with' >&2
	@$(PYTHON) -m venv .engines/rivals/$*
	@.engines/rivals/$*/bin/python -m pip install --quiet --disable-pip-version-check $(subst -,==,$*)
	@touch $@

rivals: engines $(RIVALS:%=.engines/rivals/%/installed) ## other load tools, only to compare with them (7 GB)

bench-rivals: rivals model ## what vllm bench, GuideLLM, AIPerf and we report of a server that knows the truth (half an hour)
	@.venv/bin/python tools/bench_rivals.py

SEED ?= 1

.cache/mutants/installed:
	@echo 'installing cosmic-ray to change the code with' >&2
	@$(PYTHON) -m venv .cache/mutants
	@.cache/mutants/bin/python -m pip install --quiet --disable-pip-version-check cosmic-ray==8.7.0 coverage==7.17.5
	@touch $@

mutants: $(SETUP) .cache/mutants/installed ## do the tests notice 300 small changes of the code, drawn by SEED (hours on two cores)
	@.venv/bin/python tools/mutants.py --seed $(SEED)

gpu-pack: $(SETUP) ## parts that carry vLLM and servetune to a GPU machine without a network
	@.venv/bin/python tools/gpu_pack.py

lock: ## pin the dependencies of pyproject.toml again (needs uv)
	uv pip compile --universal --python-version 3.11 --extra dev --generate-hashes --no-annotate \
		pyproject.toml -o requirements.lock
