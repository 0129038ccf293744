# `make reproduce` and `make test` need git, make and Python 3.11 or newer; everything else they set up themselves.
PYTHON ?= python3
UV_VERSION := 0.13.8
BIN := .venv/bin
SEEDS := 1
SHARED := -n logical --dist loadfile  # over the cores, a file of tests or a notebook at a time

.PHONY: help setup reproduce lab test audit notebooks bench bench-programs bench-gpu format lock clean
help:
	@echo "make reproduce   train and run every notebook on 6 of the 45 embedded people, one seed; print each claim with"
	@echo "                 its verdict: 7 to 21 minutes on two cores, three when run again. SEEDS=3 IDENTITIES=0:"
	@echo "                 all of them, three seeds, as the stored records have it: hours. FRESH=1: forget earlier ones"
	@echo "make lab         open the tour in JupyterLab, for this machine alone; what it trains lands in results/reproduced"
	@echo "                 LAB=--allow-root where you are root, as in a container"
	@echo "make test        format, lint, unit tests, stored notebooks"
	@echo "make audit       look for known vulnerabilities in what requirements.lock pins; needs the network"
	@echo "make notebooks   run the stored notebooks again in place, to renew their outputs"
	@echo "make bench       time merging, ranking and table update beside the bare matrix product: half an hour"
	@echo "                 BENCH='--device cuda' on a GPU, BENCH=--quick at tiny sizes"
	@echo "make bench-programs  merging and ranking at Market-1501's size beside the released programs' way: nine minutes"
	@echo "make bench-gpu   images a second of training and extraction on a GPU beside the bare network and a plain loop;"
	@echo "                 then whole runs, minutes on the host (BENCH=--no-runs: not); BENCH='--quick --device cpu' at tiny sizes"
	@echo "make format      let ruff format and mend what it can"
	@echo "make lock        renew requirements.lock from pyproject.toml"
	@echo "make setup       make .venv, which all of these do by themselves; make clean removes it"

setup: .venv/.done
.venv/.done: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name it: make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

reproduce: setup
	$(BIN)/reprolib reproduce --seeds $(SEEDS) $(if $(IDENTITIES),--identities $(IDENTITIES)) $(if $(FRESH),--fresh)

# Jupyter's defaults, said here so that no configuration on the machine changes them; the token is its own, a new one
# each time. What is run there leaves the stored results alone.
lab: setup
	REPROLIB_RESULTS=$(CURDIR)/results/reproduced $(BIN)/jupyter lab --ServerApp.ip=127.0.0.1 --ServerApp.allow_remote_access=False \
		--ServerApp.root_dir=$(CURDIR) --LabApp.default_url=/lab/tree/notebooks/00_tour.ipynb $(LAB)

test: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python -m pytest $(SHARED)
	REPROLIB_RESULTS=$(CURDIR)/.pytest_cache/results $(BIN)/python -m pytest $(SHARED) --nbval notebooks

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
