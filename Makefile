# `make reproduce` and `make test` need git, make and Python 3.11 to 3.14. They set up everything else themselves.
PYTHON ?= python3
UV_VERSION := 0.13.8
BIN := .venv/bin
SEEDS := 1
SHARED := -n logical --dist loadfile  # over the cores; each takes one test file or notebook at a time

.PHONY: help setup reproduce lab test audit notebooks bench bench-programs bench-gpu format lock clean
help:
	@echo "make reproduce   train and run every notebook on 6 of the 45 synthetic people, with one seed; print each claim"
	@echo "                 with its verdict: 7 to 21 minutes on two cores, three when run again. SEEDS=3 IDENTITIES=0:"
	@echo "                 all people and three seeds, as in the stored records: hours. FRESH=1: forget earlier runs"
	@echo "make lab         open the tour in JupyterLab, for this machine alone; its runs are saved in results/reproduced"
	@echo "                 LAB=--allow-root if you are root, as in a container"
	@echo "make test        run the format check, the linter, the unit tests and the stored notebooks"
	@echo "make audit       look for known vulnerabilities in what requirements.lock pins; needs the network"
	@echo "make notebooks   run the stored notebooks again in place, to renew their outputs"
	@echo "make bench       time merging, ranking and table update against the bare matrix product: half an hour"
	@echo "                 BENCH='--device cuda': on a GPU; BENCH=--quick: at tiny sizes"
	@echo "make bench-programs  time merging and ranking at Market-1501's size against the released programs' way: nine minutes"
	@echo "make bench-gpu   measure images per second of training and extraction on a GPU against the bare network and a"
	@echo "                 plain loop; then whole runs, minutes on the host (BENCH=--no-runs: skip them)"
	@echo "                 BENCH='--quick --device cpu': at tiny sizes"
	@echo "make format      let ruff format the code and fix what it can"
	@echo "make lock        renew requirements.lock from pyproject.toml"
	@echo "make setup       make .venv, which the commands above do by themselves; make clean removes it"

setup: .venv/.done
.venv/.done: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15) and "Python 3.11 to 3.14 is needed; name it: make PYTHON=python3.12 ...")'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

reproduce: setup
	$(BIN)/reprolib reproduce --seeds $(SEEDS) $(if $(IDENTITIES),--identities $(IDENTITIES)) $(if $(FRESH),--fresh)

# These are Jupyter's defaults, set here so that no configuration on the machine changes them. Jupyter makes its own
# token, a new one each time. Runs in the lab do not change the stored results.
lab: setup
	REPROLIB_RESULTS="$(CURDIR)/results/reproduced" $(BIN)/jupyter lab --ServerApp.ip=127.0.0.1 --ServerApp.allow_remote_access=False \
		--ServerApp.root_dir="$(CURDIR)" --LabApp.default_url=/lab/tree/notebooks/00_tour.ipynb $(LAB)

test: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python -m pytest $(SHARED) --no-loadscope-reorder
	REPROLIB_RESULTS="$(CURDIR)/.pytest_cache/results" $(BIN)/python -m pytest $(SHARED) --nbval notebooks

audit: setup
	@$(BIN)/uvx --quiet pip-audit --version || { echo "make audit: pip-audit cannot be fetched: it needs the network"; exit 1; }
	@$(BIN)/uvx --quiet pip-audit --disable-pip --require-hashes --requirement requirements.lock \
		|| { echo "make audit: see above: a vulnerability, or no way to the advisories. No test asks this"; exit 1; }

notebooks: setup
	$(BIN)/jupyter nbconvert --to notebook --execute --inplace \
		--ExecutePreprocessor.record_timing=False --ExecutePreprocessor.coalesce_streams=True \
		--ClearMetadataPreprocessor.enabled=True --ClearMetadataPreprocessor.clear_notebook_metadata=False \
		--ClearMetadataPreprocessor.preserve_cell_metadata_mask=tags notebooks/*.ipynb

bench: setup
	$(BIN)/python -m benchmarks $(BENCH)

bench-programs: setup
	$(BIN)/python -m benchmarks.programs $(BENCH)

bench-gpu: setup
	$(BIN)/python -m benchmarks.gpu $(BENCH)

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: setup
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--extra cluster --extra dev pyproject.toml --output-file requirements.lock

clean:
	rm -rf .venv .pytest_cache .ruff_cache
