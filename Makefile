# make demo, make test, and the rest: `make help`
PYTHON ?= python3
VENV ?= .venv
PIP_FLAGS ?=
BIN := $(VENV)/bin
MIN_PYTHON := $(shell sed -n 's/^min_python *= *//p' settings.ini)
CUDA := $(shell command -v nvidia-smi >/dev/null 2>&1 && echo --run-cuda)

.PHONY: help demo test in-sync sync notebooks site clean
.DELETE_ON_ERROR:

help:
	@echo "make demo       install into $(VENV), run the whole pipeline on the tiny profile, show the comparison table"
	@echo "make test       install with the development extra, check that package and notebooks agree, run every test"
	@echo "make sync       regenerate gemma_peft/ from the notebooks"
	@echo "make notebooks  execute the notebooks in place, so that their outputs are fresh"
	@echo "make site       turn the newest run into the site"
	@echo "make clean      remove what can be made again; runs/ stays"
	@echo
	@echo "PYTHON=python3.12     which Python makes $(VENV) ($(MIN_PYTHON) or later)"
	@echo "PIP_FLAGS='--extra-index-url https://download.pytorch.org/whl/cpu'     on Linux without a GPU: a much smaller PyTorch"

demo: $(VENV)/.package
	$(BIN)/gemma-peft run

test: $(VENV)/.dev in-sync
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest nbs --run-slow $(CUDA) -rs -n auto --maxprocesses 8 --dist loadfile

in-sync: $(VENV)/.dev
	@PATH="$(abspath $(BIN)):$$PATH" .ci/in-sync

sync: $(VENV)/.dev
	@PATH="$(abspath $(BIN)):$$PATH" .ci/sync
	@git status --short gemma_peft nbs 2>/dev/null || true

notebooks: $(VENV)/.dev
	cd nbs && for nb in [0-9]*.ipynb; do $(abspath $(BIN))/jupyter nbconvert --to notebook --execute --inplace "$$nb" || exit 1; done
	$(BIN)/nbdev_clean

site: $(VENV)/.dev
	$(BIN)/gemma-peft site

clean:
	rm -rf $(VENV) build dist *.egg-info report .report.part .site.lock _site .quarto .pytest_cache .hypothesis nbs/.ipynb_checkpoints
	find gemma_peft nbs -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/pip:
	@command -v $(PYTHON) >/dev/null || { echo "There is no $(PYTHON) here. Install Python $(MIN_PYTHON) or later, or name one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < tuple(int(n) for n in "$(MIN_PYTHON)".split(".")))' || \
	  { echo "$(PYTHON) is $$($(PYTHON) -V 2>&1); gemma_peft needs Python $(MIN_PYTHON) or later. Name one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "$(PYTHON) cannot make a virtual environment. On Debian and Ubuntu: apt install python3-venv" >&2; rm -rf $(VENV); exit 1; }

# Installed in place (-e), so that an edited notebook counts at once. .dev holds all that .package does.
$(VENV)/.package: settings.ini setup.py pyproject.toml | $(VENV)/bin/pip
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) -e .
	@touch $@

$(VENV)/.dev: settings.ini setup.py pyproject.toml | $(VENV)/bin/pip
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) -e '.[dev]'
	@touch $(VENV)/.package $@
