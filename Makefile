# Every target installs what it needs into .venv, once; after a change of pyproject.toml or constraints.txt, again.
# pip's own variables work, for instance for a torch without CUDA (a much smaller download):
#   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make demo

SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test test-slow coverage bench lint format screenshot

PYTHON ?= python3
CASE ?=
OUT ?= out
PARTS ?=

BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --constraint constraints.txt --editable
WITH_DISPLAY := tools/with_display
PYTEST := OMP_NUM_THREADS=1 $(WITH_DISPLAY) $(BIN)/pytest --numprocesses logical --maxprocesses 4 --dist worksteal

help:  ## Show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

demo: .venv/runtime.stamp  ## Segment the sample case, or CASE=path, into OUT=out
	$(BIN)/napari-braintumor demo $(if $(CASE),"$(CASE)") --output "$(OUT)"

test: lint .venv/display.stamp  ## Lint, check types and manifest, run the quick tests
	$(BIN)/npe2 validate --imports src/napari_braintumor/napari.yaml
	$(PYTEST) -m "not slow"

test-slow: .venv/dev.stamp .venv/display.stamp  ## Run the slow tests, the wheel in an empty environment, the lowest versions
	$(PYTEST) -m slow
	$(BIN)/python tools/check_wheel.py
	tools/check_lowest .lowest

coverage: .venv/dev.stamp .venv/display.stamp  ## Print which lines and branches the quick tests never take
	$(PYTEST) -m "not slow" --cov

bench: .venv/dev.stamp .venv/display.stamp  ## Measure time and memory, into benchmarks/results.md (on an idle machine)
	$(WITH_DISPLAY) $(BIN)/python benchmarks/run.py $(PARTS)

lint: .venv/dev.stamp  ## Check style, types and who imports whom
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/typos

format: .venv/dev.stamp  ## Put the code into shape
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

screenshot: .venv/dev.stamp .venv/display.stamp  ## Take the pictures of the docks anew
	$(WITH_DISPLAY) $(BIN)/python tools/make_screenshot.py
	$(WITH_DISPLAY) $(BIN)/python tools/make_compare_screenshot.py
	$(WITH_DISPLAY) $(BIN)/python tools/make_cohort_screenshot.py

.venv/bin/python:
	PYTHON="$(PYTHON)" tools/make_venv .venv

.venv/runtime.stamp: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) .
	@touch $@

.venv/dev.stamp: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) '.[dev]'
	@touch .venv/runtime.stamp $@

.venv/display.stamp: tools/debian_packages.txt | .venv/bin/python
	tools/install_debian_packages $$(cat tools/debian_packages.txt)
	@touch $@
