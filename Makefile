# The doors of Firmledger. Each does its own set-up, and is quick when there is nothing to set up.
#
# PYTHON=python3.12   the interpreter to make .venv with (3.11 or newer; otherwise found on PATH)
# REG=reg             the registry's folder, for `make serve`
# ARGS='...'          more arguments for what a door starts

.DEFAULT_GOAL := help
.PHONY: help demo test lint contracts bench serve
SHELL := /bin/sh

REG ?= reg
BIN := .venv/bin
FORGE = $(BIN)/python contracts/foundry.py forge
# A folder of this checkout's own: what pytest shares between runs, concurrent runs delete.
SCRATCH = $${TMPDIR:-/tmp}/firmledger-test-$$(pwd | cksum | cut -d ' ' -f 1)
TYPED := protocol registry device_client demo contracts/build.py contracts/foundry.py contracts/analyse.py contracts/prove.py

# The set-up itself is a Python file; any python3 can start it, and it finds the right one.
SETUP := command -v "$(or $(PYTHON),python3)" >/dev/null || { \
	echo "error: no $(or $(PYTHON),python3) found / Firmledger needs Python 3.11 or newer /" \
	"install it (Debian: apt-get install python3 python3-venv) or name it with PYTHON=" >&2; \
	exit 1; }; \
	"$(or $(PYTHON),python3)" requirements/install.py $(if $(PYTHON),--python "$(PYTHON)")

help: ## Show these doors
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

demo: ## The whole story in two minutes: publish, prove, flash, roll back, audit
	@$(SETUP) registry
	@$(BIN)/firmledger demo $(ARGS)

test: ## All tests: the contract's (forge), then everything else (pytest)
	@$(SETUP) dev npm
	@$(FORGE) test
	@$(BIN)/python -m pytest -n 2 --dist loadfile --basetemp="$(SCRATCH)" $(ARGS)

lint: ## Style, types, import rules; generated files are what the sources give; slither
	@$(SETUP) dev npm slither
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy $(TYPED)
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python contracts/build.py --solc contracts/solcjs --check
	@$(BIN)/python contracts/analyse.py

contracts: ## Compile the contract; write its artifacts and protocol/_abi.py
	@$(SETUP) registry npm
	@$(BIN)/python contracts/build.py --solc contracts/solcjs $(ARGS)

bench: ## Measure what the README states; write bench/results.json
	@$(SETUP) dev npm
	@$(BIN)/python -m bench $(ARGS)

serve: ## A registry on this machine: API and pages on 127.0.0.1:8700, kept in ./reg
	@$(SETUP) registry
	@test -e "$(REG)" || $(BIN)/firmledger init "$(REG)"
	@$(BIN)/firmledger -C "$(REG)" serve $(ARGS)
