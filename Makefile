# Two commands a newcomer types: `make demo` and `make test`. Each alone sets up everything in .venv.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

export HF_HUB_OFFLINE         = 1
export TOKENIZERS_PARALLELISM = false
export PIP_DISABLE_PIP_VERSION_CHECK = 1
export NO_MKDOCS_2_WARNING    = 1

.PHONY: demo test lint check docs site wheel leaderboard families clean

demo: $(READY)           ## plant a backdoor in a tiny model, trace it, report it
	$(BIN)/headwater demo --out runs/demo

test: lint check site wheel   ## everything that must hold before a change lands

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: $(READY)           ## a file's tests stay in one process; two processes of one thread each
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile

docs: $(READY)           ## rewrite the tables that are generated from the code
	$(BIN)/python docs/generate.py

site: $(READY)            ## the documentation as a site in site/; a broken link is an error
	$(BIN)/mkdocs build --strict --quiet

wheel: $(READY)           ## build the package, install it in an environment of its own, and run its demo there
	rm -rf dist build/wheel
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	$(PYTHON) -m venv build/wheel
	build/wheel/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	build/wheel/bin/python -m pip install --quiet --constraint constraints.txt dist/headwater-*.whl
	cd build/wheel && bin/headwater demo --out demo

leaderboard: $(READY)    ## every method on every task: docs/leaderboard.md, about 45 minutes, resumable
	$(BIN)/headwater eval leaderboard --out runs/leaderboard --document docs/leaderboard.md

families: $(READY)       ## a tiny model of every family of transformers against autograd: docs/families.md, an hour, resumable
	$(BIN)/python -W ignore benchmarks/families.py --out runs/families --document docs/families.md

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[gguf,ray,view]" --group dev
	touch $@

clean:
	rm -rf $(VENV) runs dist build site
