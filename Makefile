# `make demo` and `make test` need Python (3.10-3.13) and make; the rest is fetched here.
SHELL := /bin/bash
.DEFAULT_GOAL := help
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
UV_HERE := $(if $(findstring .uv,$(UV)),.uv/bin/uv)
RUN := $(UV) run --frozen
JOBS ?= 2
export OMP_NUM_THREADS ?= 1
# Without bytecode each process that a test starts would compile SciPy or PyTorch first, which is most of its work.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo docs test test-nightly test-profiles test-aarch64 test-deploy test-js lint lint-js installed types imports bench demo-bundles screenshots clean

help:
	@echo 'make demo          run the live loop on a simulated person for 30 s'
	@echo 'make test          lint, type-check and all tests'
	@echo 'make test-js       the unit tests of the JavaScript alone'
	@echo 'make test-nightly  more of the training recipes'
	@echo 'make test-profiles the run-time tests on the versions of JetPack 6 and 7, the lowest and the newest'
	@echo 'make test-deploy   containers, units and rules of deploy/, by hadolint, promtool, udevadm, systemd and Docker'
	@echo 'make docs          the documentation as a site, in .cache/site; broken links are errors'
	@echo 'make bench         developers'"'"' benchmarks, with a Markdown table'
	@echo 'make demo-bundles  retrain the demo bundles that ship in the package'
	@echo 'make screenshots   remake the pictures of the README'

.uv/bin/uv:
	@./scripts/get-uv.sh

# Fetches uv by pip where it is missing, the few system packages where we are root, and the locked environment.
setup: $(UV_HERE)
	@./scripts/system-packages.sh
	$(UV) sync --frozen --quiet
	@./scripts/javascript.sh setup

demo: $(UV_HERE)
	@./scripts/demo-environment.sh $(UV) .cache/demo
	.cache/demo/bin/jmt-edge live --task trimodal --duration 30 --output tui

lint: setup
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(MAKE) --no-print-directory types imports lint-js

# ESLint on the pages' JavaScript; Node.js comes with the environment, its packages by npm from tests/js/package-lock.json.
lint-js: setup
	./scripts/javascript.sh lint

# What is installed is checked, because a checkout keeps three sub-packages beside the package.
installed: setup
	rm -rf .cache/typed && $(UV) pip install --quiet --no-deps --target .cache/typed .

types: installed
	cd .cache/typed && $(CURDIR)/.venv/bin/mypy --config-file $(CURDIR)/pyproject.toml -p jmt_edge

imports: installed
	cd .cache/typed && $(CURDIR)/.venv/bin/lint-imports --no-logo $(CURDIR)/pyproject.toml

# Browsers, serial lines and sound servers keep to the clock, and a machine that is busy with something else makes them
# late. What failed is run once more with nothing beside it, and must pass then; both runs are printed.
BESIDE := not realtime and not alone and not nightly
AGAIN = (echo 'once more, alone:'; $(RUN) pytest --last-failed --last-failed-no-failures=none -m

test: lint test-js
	$(RUN) pytest -n $(JOBS) -m '$(BESIDE)' || $(AGAIN) '$(BESIDE)')
	$(RUN) pytest -m 'realtime or alone' || $(AGAIN) 'realtime or alone')

test-js: setup
	./scripts/javascript.sh test

# What `make test` has no time for: its tests of few kinds are these of all.
test-nightly: setup
	$(RUN) pytest -n $(JOBS) -m nightly

# The run-time on the versions of JetPack 6 and 7, on the lowest and on the newest, each in an environment of its own.
test-profiles: setup
	$(RUN) python scripts/profiles.py --uv $(UV) $(PROFILES)
	$(if $(PROFILES),,$(MAKE) --no-print-directory test-aarch64)

# The run-time on aarch64, emulated: minutes. Skipped where there is no QEMU.
test-aarch64: setup
	@if command -v qemu-aarch64-static >/dev/null; then PATH="$$PATH:$(CURDIR)/.uv/bin" ./scripts/aarch64-check.sh; \
	else echo 'skipped: no qemu-aarch64-static (apt install qemu-user-static)'; fi

# Containers, units, udev's and Prometheus' rules by the programs they are for; as root, with the x86-64 image built and run.
test-deploy: $(UV_HERE)
	@PATH="$$PATH:$(CURDIR)/.uv/bin" ./scripts/deploy-check.sh

docs: setup
	$(RUN) --with 'sphinx>=7.4' --with 'myst-parser>=4' --with 'furo>=2024.8' python scripts/build_docs.py .cache/site

bench: setup
	$(RUN) python -m benchmarks

demo-bundles: setup
	$(RUN) jmt-edge train --demo all --out jmt_edge/engine/bundles

screenshots: setup
	$(RUN) python scripts/screenshots.py

clean:
	rm -rf .cache build dist *.egg-info
