# `make demo` and `make test` do everything on a machine that has Python 3.11 or newer and make.

PYTHON ?= python3
BIN := .venv/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
INSTALLED := .venv/installed
MINUTES ?= 30

# What make test leaves to make test-all: all but one quick test of each of these kinds.
QUICK := not (launch or browser or node or server or install or fuzz or slow or device)

.PHONY: demo test test-all test-device test-oldest test-on lint fuzz audit wheel dist docs bench weights files clean

$(INSTALLED): pyproject.toml src/reviewgen/version.py
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "reviewgen needs Python 3.11 or newer; run: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: $(INSTALLED)
	$(BIN)/reviewgen generate lstm-word -n 5 --seed 1
	rm -rf demo-model
	$(BIN)/reviewgen train lstm-word --data reviews --budget 2m --out demo-model
	$(BIN)/reviewgen generate demo-model -n 5 --seed 1

test: lint
	ACCELERATE_USE_CPU=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "$(QUICK)"

# Everything, with annotations and shapes checked at run time, but where a test passes wrong types on purpose.
test-all: lint
	REVIEWGEN_CHECK_TYPES=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not wrong_types"
	$(BIN)/python -m pytest -m wrong_types

# The tests that need an accelerator; without one they are skipped, with the reason.
test-device: $(INSTALLED)
	$(BIN)/python -m pytest tests/device -rs -k "not fp16"
	ACCELERATE_MIXED_PRECISION=fp16 $(BIN)/python -m pytest tests/device -rs -k fp16

# The lower bounds of all ranges, and another version of Python (make test-on VERSION=3.13).
test-oldest: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --editable '.[dev,audit]'
	$(BIN)/uv venv --clear --quiet --python $(BIN)/python .venv-oldest
	$(BIN)/uv pip install --quiet --python .venv-oldest/bin/python --resolution lowest-direct --editable '.[dev,bench]'
	.venv-oldest/bin/python -m tests.audit.bounds dev bench
	.venv-oldest/bin/python -m pytest -n 2 --dist worksteal $(TESTS)

test-on: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --editable '.[dev,audit]'
	$(BIN)/uv venv --clear --quiet --python $(VERSION) .venv-$(VERSION)
	$(BIN)/uv pip install --quiet --python .venv-$(VERSION)/bin/python --editable '.[dev]'
	.venv-$(VERSION)/bin/python -m pytest -n 2 --dist worksteal $(TESTS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m tests.lint

fuzz: $(INSTALLED)
	$(BIN)/python -m tests.hostile --minutes $(MINUTES)

audit: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --editable '.[dev,bench,docs,ray,audit]'
	$(BIN)/python -m tests.audit

wheel: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --editable '.[dev,ray,audit]'
	$(BIN)/python -m tests.audit.sbom build/reviewgen.cdx.json
	REVIEWGEN_SBOM=build/reviewgen.cdx.json $(BIN)/python -m hatchling build -t wheel -d dist

# What a release publishes; an sdist has no SBOM.
dist: $(INSTALLED)
	rm -rf dist
	$(MAKE) wheel
	$(BIN)/python -m hatchling build -t sdist -d dist
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/check-wheel-contents dist

docs: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --editable '.[dev,docs]'
	$(BIN)/python docs/mkdocs/build.py
	@echo "The documentation is in build/docs/index.html"

bench: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --editable '.[dev,bench]'
	$(BIN)/python -m tests.benchmarks

# The weights that ship, trained in the background, in a clone outside this checkout; each call prints what is left to do.
weights: $(INSTALLED)
	$(BIN)/python examples/train_weights.py

files: $(INSTALLED)
	$(BIN)/python -m tests.lint.files

clean:
	rm -rf .venv .venv-* dist build demo-model
