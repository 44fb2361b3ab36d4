# make setup | demo | test | test-long | test-310 | lint | parity | scoreboard | bench | clean.  `make demo` on a fresh clone needs nothing but python3 and make.
#
# PYTHON       the Python 3.10 to 3.13 that .venv is made from (default python3)
# PYTHON310    the Python 3.10 that test-310 takes (default: what .ci/python310 finds)
# TORCH_INDEX  an extra package index to take torch from; PyTorch's own CPU index avoids the large CUDA build on Linux
# ARGS         passed on to the command: make demo ARGS="--data mnist --data-root ../shared/datasets"

PYTHON ?= python3
TORCH_INDEX ?=
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
SPEC := .[train,lava,dev]
PIP := $(BIN)/python -m pip install --disable-pip-version-check --no-input
TORCH := $(shell sed -n 's/^\(torch==[^;]*\).*/\1/p' constraints.txt)
# One process a core; each test process computes on one thread, so the two do not fight.
PYTEST := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

STEP := sh .ci/step
VERSION_CHECK := import sys; v = sys.version_info[:2]; \
	sys.exit(None if (3, 10) <= v <= (3, 13) else f"Python 3.10 to 3.13 is needed, this is {v}; set PYTHON=...")

.PHONY: setup demo test test-long test-310 lint parity validate chips scoreboard bench bench-training finetune reproduce clean
.NOTPARALLEL:
.DELETE_ON_ERROR:

setup: $(STAMPS)/lava

$(STAMPS)/python:
	@$(STEP) "look at $(PYTHON)" $@ $(PYTHON) -c '$(VERSION_CHECK)'

$(STAMPS)/venv: $(STAMPS)/python
	@$(STEP) "make $(VENV) with $(PYTHON)" $@ $(PYTHON) -m venv $(VENV)

$(STAMPS)/torch: $(STAMPS)/venv constraints.txt
	@$(STEP) "install $(TORCH) (about 200 MB; first, so that nothing else chooses a build)" $@ \
		$(PIP) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -c constraints.txt $(TORCH)

$(STAMPS)/packages: $(STAMPS)/torch pyproject.toml constraints.txt
	@$(STEP) "install neurokd and what it needs" $@ $(PIP) -c constraints.txt -e '$(SPEC)'

$(STAMPS)/lava: $(STAMPS)/packages deploy/loihi/install.py
	@$(STEP) "install Lava" $@ $(BIN)/python -m deploy.loihi.install

demo: setup
	$(BIN)/neurokd demo $(ARGS)

test: setup
	$(PYTEST) -m "not long" $(ARGS)

test-long: setup
	$(PYTEST) -m long $(ARGS)

# Where Loihi hosts are: Python 3.10, lava-nc and numpy as Lava's own metadata wants them, no torch. One test process a
# core as above; the whole chip side, the golden vectors and the parity sample.
VENV310 := .venv-310
PIP310 := $(VENV310)/bin/python -m pip install --disable-pip-version-check --no-input

$(VENV310)/stamps/venv: .ci/python310
	@python=$$(PYTHON310='$(PYTHON310)' sh .ci/python310) && \
		$(STEP) "make $(VENV310) with $$python" $@ "$$python" -m venv $(VENV310)

$(VENV310)/stamps/packages: $(VENV310)/stamps/venv pyproject.toml constraints.txt
	@$(STEP) "install neurokd and Lava for Python 3.10, without torch" $@ \
		$(PIP310) -c constraints.txt -e '.[lava]' pytest pytest-timeout pytest-xdist hypothesis

# lava-dl without what it declares (torch, OpenCV): its netx loader, as our worker runs it, needs none of that.
$(VENV310)/stamps/lava-dl: $(VENV310)/stamps/packages
	@$(STEP) "install lava-dl, without torch" $@ $(PIP310) --no-deps -c constraints.txt lava-dl

test-310: $(VENV310)/stamps/lava-dl
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(VENV310)/bin/python -m pytest -n 2 --dist worksteal -m "not long" \
		tests/deploy tests/golden $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

parity: setup
	$(BIN)/python -m benchmarks.parity $(ARGS)

scoreboard: setup
	$(BIN)/python -m benchmarks.scoreboard $(ARGS)

bench: setup
	$(BIN)/python -m benchmarks.run $(ARGS)
	$(BIN)/python -m benchmarks.lava_repair
	$(BIN)/python -m benchmarks.lava_worker
	$(BIN)/python -m benchmarks.netx
	$(BIN)/python -m benchmarks.loihi_page

# Speed and memory of training beside snntorch's loop and SpikingJelly (NEUROKD_SPIKINGJELLY_PYTHON names a Python that
# has it), then docs/training.md's tables: make bench-training ARGS="--only dense"
bench-training: setup
	$(BIN)/python -m benchmarks.training $(ARGS)
	$(BIN)/python -m benchmarks.training_page

# The poster's tables with our networks: make reproduce ARGS="--data mnist --data-root DIR"; interrupted, it goes on.
# On two cores ARGS="--processes 2" trains two data sets or seeds at a time.
reproduce: setup
	$(BIN)/neurokd reproduce $(ARGS)

# Energy, latency and counts against SANA-FE (GPL: an environment and processes of its own), NeuroBench and published
# figures; writes docs/energy-model.md and docs/chips.md.
OTHERS := $(VENV)/others
VALIDATE := NEUROKD_SANAFE_PYTHON=$(CURDIR)/$(OTHERS)/sanafe/bin/python \
	NEUROKD_NEUROBENCH_PYTHON=$(CURDIR)/$(OTHERS)/neurobench/bin/python

$(OTHERS)/sanafe/.installed:
	$(PYTHON) -m venv $(OTHERS)/sanafe
	$(OTHERS)/sanafe/bin/python -m pip install --disable-pip-version-check --no-input sanafe==2.2.9 numpy
	touch $@

$(OTHERS)/neurobench/.installed: constraints.txt
	$(PYTHON) -m venv $(OTHERS)/neurobench
	$(OTHERS)/neurobench/bin/python -m pip install --disable-pip-version-check --no-input \
		$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) $(TORCH) neurobench==2.3.0 snntorch
	touch $@

# Also with trained networks: make validate ARGS="--grid mnist fashion-mnist cifar10 --data-root DIR".
validate: setup $(OTHERS)/sanafe/.installed $(OTHERS)/neurobench/.installed
	$(VALIDATE) $(BIN)/python -m benchmarks.validate $(ARGS)
	$(BIN)/python -m benchmarks.energy_page

# The grid's students and teachers on every chip file, then docs/chips.md:
# make chips ARGS="--grid mnist fashion-mnist cifar10 --data-root DIR"
chips: setup
	$(BIN)/python -m benchmarks.chips $(ARGS)
	$(BIN)/python -m benchmarks.energy_page

# The fine-tuning grid, its tables and its plot: make finetune ARGS="--data-root DIR"; interrupted, it goes on.
finetune: setup
	$(BIN)/python -m benchmarks.finetune $(ARGS)
	$(BIN)/python -m benchmarks.pareto

clean:
	rm -rf $(VENV) $(VENV310) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
