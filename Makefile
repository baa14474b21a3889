# make train: the main job, from nothing.  make test: linters, types and tests, from nothing.
# make figures: the tables and pictures of measurements in README.md and docs/, from the raw files in docs/results.
PYTHON ?= python3
ENV := .venv
RUN := $(ENV)/bin/python
INSTALL := $(RUN) -m pip install --quiet --no-compile --disable-pip-version-check

# Installing compiles nothing: what is imported is compiled then, once, and most of what is installed never is. That
# takes half the processor time, if what was compiled is kept.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: train test lint figures clean

train: $(ENV)/.installed
	$(RUN) train.py algorithm=GAIL env=hopper optimised_hyperparameters=GAIL_fast

test: lint
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n auto --dist worksteal

lint: $(ENV)/.installed-dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy --num-workers auto .

figures: $(ENV)/.installed
	$(RUN) scripts/make_results.py
	$(RUN) scripts/make_tables.py
	$(RUN) scripts/print_plot_sweep_results.py --path docs/results/optimisation_bc

# The pip that comes with Python 3.11 takes twice the processor time of a new one.
define install
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(ENV)
	$(INSTALL) pip==26.3
	$(INSTALL) -r $(1)
endef

# The stamps are newer than the requirements that they were made from, so a second call installs nothing.
$(ENV)/.installed: requirements.txt
	$(call install,requirements.txt)
	@touch $@

$(ENV)/.installed-dev: requirements-dev.txt requirements-formats.txt requirements.txt
	$(call install,requirements-dev.txt)
	@touch $(ENV)/.installed $@

clean:
	rm -rf $(ENV) .mypy_cache .pytest_cache .ruff_cache .coverage
