# Needs an environment with the development tools: python -m pip install -e ".[dev]"
PYTHON ?= python

.PHONY: attack check lint test format coverage docs release-check

check: lint test

lint:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy --strict

test:
	$(PYTHON) -m pytest

# A million hostile inputs and 100 kills; see docs/attack.md, whose figures it writes.
attack:
	$(PYTHON) tests/attack/run.py --inputs 1000000 --kills 100 --parallel 2 --report docs/attack.md

format:
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

# The suite with every line counted; pyproject.toml sets the floor. Slower than `make test`.
coverage:
	$(PYTHON) -m coverage erase
	$(PYTHON) -m coverage run -m pytest
	$(PYTHON) -m coverage combine --quiet
	$(PYTHON) -m coverage report

# The site, into site/. A broken link, an unknown name, or anything loaded from the network is an error.
docs:
	$(PYTHON) -m zensical build --strict --clean
	$(PYTHON) .ci/check_site.py site

# The suite against the built wheel, in a fresh environment and away from the sources.
release-check:
	@set -eu; unset PYTHONPATH; \
	place=$$(mktemp -d); trap 'rm -rf "$$place"' EXIT; trap 'exit 1' INT TERM; \
	$(PYTHON) -m build --outdir "$$place/dist" .; \
	$(PYTHON) -m venv "$$place/venv"; \
	"$$place/venv/bin/python" -m pip install "$$(echo "$$place"/dist/*.whl)[dev]"; \
	mkdir "$$place/suite"; \
	for name in CONTRIBUTING.md README.md docs experiments pyproject.toml tests; do \
		if [ -e "$$name" ]; then cp -R "$$name" "$$place/suite"; fi; \
	done; \
	cd "$$place/suite"; \
	"$$place/venv/bin/python" -m pytest
