# The Literate Transformer. `make` alone lists what you can do; every target sets itself up.

PYTHON ?= python3
VENV := .venv
COLAB := .venv-colab
BIN := $(VENV)/bin
EXTRAS := book,test,dev

# LAX=1 for other versions than those of constraints.txt: the newest that pyproject.toml allows,
# and notebooks whose cells must pass but whose outputs may differ in their digits.
ifdef LAX
INSTALLED := $(VENV)/.installed-lax
CONSTRAINTS :=
LINT :=
COVERAGE :=
NBVAL := --nbval-lax
else
INSTALLED := $(VENV)/.installed
CONSTRAINTS := -c constraints.txt
LINT := lint
COVERAGE := --cov --cov-report=term --cov-fail-under=95
NBVAL := --nbval --nbval-sanitize-with tests/nbval.cfg
endif

# On each core one test file or notebook at a time, with one thread. Notebooks are compared in the
# environment that tools/notebooks.py executes them in, but for the number of threads.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=logical --dist=loadfile
KERNEL := env -u MPLBACKEND CUDA_VISIBLE_DEVICES= PYTHONHASHSEED=0

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help book pdf serve test test-notebooks colab notebooks lighthouse bench mutants lint audit clean set-up constraints

help: ## list what you can do
	@sed -n 's/^\([a-z-]*\):.* ## \(.*\)$$/make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | \
	  awk -F '\t' '{ printf "%-16s %s\n", $$1, $$2 }'

book: $(INSTALLED) ## build the site into _build/html
	@$(BIN)/python tools/site.py

pdf: $(INSTALLED) ## print the whole book into _build/pdf/book.pdf, with Chromium
	@$(BIN)/python tools/site.py --if-stale
	@$(BIN)/python tools/pdf.py

serve: $(INSTALLED) ## build the site if anything changed, and serve it on this machine
	@$(BIN)/python tools/site.py --if-stale --serve

test: $(INSTALLED) $(LINT) ## run every check: style, tests, each notebook against its outputs
	@$(PYTEST) $(COVERAGE)
	@$(MAKE) --no-print-directory test-notebooks

test-notebooks: $(INSTALLED) ## run each notebook and compare it with its stored outputs
	@$(KERNEL) $(PYTEST) $(NBVAL) --nbval-current-env book/*.ipynb

colab: $(COLAB)/.installed ## run every committed notebook as in Colab (ONLY="04 05": these)
	@$(COLAB)/bin/python tools/colab.py $(ONLY)

notebooks: $(INSTALLED) ## execute the chapters that changed (ALL=1: all; ONLY=04: this one)
	@$(BIN)/python tools/notebooks.py $(ONLY) $(if $(ALL),--all)

lighthouse: $(INSTALLED) ## hold the first page and the chapters to Lighthouse's scores (ONLY=04)
	@$(BIN)/python tools/site.py --if-stale
	@$(BIN)/python tools/lighthouse.py $(ONLY)

bench: $(INSTALLED) ## measure the speed, beside other public implementations too
	@$(BIN)/python benchmarks/training_step.py
	@$(BIN)/python benchmarks/greedy_decoding.py
	@$(BIN)/python benchmarks/attention.py
	@$(BIN)/python benchmarks/positions.py
	@$(BIN)/python benchmarks/import_time.py
	@$(BIN)/python benchmarks/pronouncing.py
	@$(BIN)/python benchmarks/growth.py

mutants: $(INSTALLED) ## break the code in one place at a time: do tests notice? (ONLY=window)
	@OMP_NUM_THREADS=1 CUDA_VISIBLE_DEVICES= $(BIN)/python tools/mutants.py $(ONLY)

lint: $(INSTALLED) ## check the code without running it: style, types, dependencies
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/deptry . 2>/dev/null || $(BIN)/deptry .

audit: $(INSTALLED) ## ask PyPI whether a version of constraints.txt has a known vulnerability
	@$(BIN)/pip-audit --strict --requirement constraints.txt --no-deps --disable-pip

clean: ## delete what was built; the environments in .venv* stay
	rm -rf _build build dist mutants runs .coverage .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -path './$(VENV)*' -prune -o -name __pycache__ -type d -exec rm -rf {} +

# Not listed: what the others need.
set-up: $(INSTALLED)

$(INSTALLED): pyproject.toml $(if $(LAX),,constraints.txt) | $(BIN)/python
	@echo "Installing the book's packages into $(VENV) (once, a few minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS) \
	  --editable '.[$(EXTRAS)]'
	@touch $@

$(COLAB)/.installed: tests/colab.txt | $(BIN)/python
	@echo "Installing Colab's packages into $(COLAB) (once, a few minutes)"
	@$(BIN)/python -m venv --clear $(COLAB)
	@$(COLAB)/bin/python -m pip install --quiet --disable-pip-version-check -r tests/colab.txt
	@touch $@

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || \
	  { echo "No $(PYTHON) here. The book needs Python 3.11 or newer: make PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "This is Python " + \
	  sys.version.split()[0] + ". The book needs 3.11 or newer: make PYTHON=python3.11 ...")'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "This Python has no venv. On Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

# Write constraints.txt anew from what .venv holds now, its comment kept. To move to newer versions:
# .venv/bin/python -m pip install --upgrade --upgrade-strategy eager -e '.[book,test,dev]'
# first, then this, then `make notebooks ALL=1` and `make test`.
constraints: | $(BIN)/python
	@{ sed -n '/^#/p' constraints.txt; \
	  $(BIN)/python -m pip freeze --all --exclude pip --exclude-editable | sed 's/+.*//'; \
	  } > constraints.new
	@mv constraints.new constraints.txt
