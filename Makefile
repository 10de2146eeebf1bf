# SPDX-License-Identifier: BSD-3-Clause
# From a fresh clone to a running demo: `make demo`. What is missing gets installed first
# (tools/bootstrap: Debian packages, .venv); PYTHON=/path/to/python3.12 picks another interpreter.

PY := .venv/bin/python
# What the compiled data plane is made of. The list is kept, so that a removed file counts too, and
# a library that has come.
NATIVE := $(sort $(shell find hummingbird/dataplane cl_kernels -name '*.[ch]' -o -name '*.cl'))
OPTIONAL := $(wildcard $(addprefix /usr/include/,intel-ipsec-mb.h hs/hs.h pcre2.h dpdk/rte_eal.h))
LIST := build/native.list
BUILT := .venv/.built
C_CODE = $(NATIVE) $(shell find tests/c bench -name '*.[ch]')
DEMO := build/demo
# What has to be there: for tests everything.
GOALS := $(MAKECMDGOALS)
WANT := $(firstword $(if $(filter test fmt,$(GOALS)),test) $(filter bench docs,$(GOALS)) run)

.DEFAULT_GOAL := build
.PHONY: build mdpdk demo test bench docs fmt clean help ready FORCE

build: ready $(BUILT) ## compile the data plane, installing what is missing

mdpdk: build ## build DPDK with mdpdk_patches/ and the plug-in that it takes; minutes, once
	@at=$$(mdpdk_patches/build.sh) && \
	    $(PY) hummingbird/dataplane/build_dpdk.py hummingbird/dataplane $$at

demo: build ## replay a capture through a topology with a branch; results in build/demo
	@mkdir -p $(DEMO)
	.venv/bin/hummingbird run policies/branch_gateway.yaml --in policies/demo/branch.pcap \
	    --pace original --out $(DEMO)/out.pcap --json $(DEMO)/summary.json

test: ready $(BUILT) ## run all tests and style checks; ARGS="-k name" picks some
	@$(PY) -m pytest -q $(ARGS)

bench: ready $(BUILT) ## run all benchmarks (QUICK=1: in minutes); bench/results/REPORT.md
	@$(PY) bench/report.py $(if $(QUICK),--quick) $(ARGS)

docs: ready $(BUILT) ## build the site of the docs; build/site/index.html
	@$(PY) -m mkdocs build --strict

fmt: ready ## format Python and C, and fix what ruff can
	@.venv/bin/ruff format -q . && .venv/bin/ruff check -q --fix .
	@.venv/bin/clang-format -i $(C_CODE)

clean: ## remove what was built; .venv stays
	@rm -rf build dist *.egg-info hummingbird/dataplane/*.so $(BUILT)
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis

help: ## show this
	@sed -n 's/^\([a-z]*\):[^#]*## /\1\t/p' Makefile | expand -t 10

ready:
	@tools/bootstrap $(WANT)
	@chmod 600 policies/demo/ipsec.key # keys that others may read are refused, and git keeps no modes

$(BUILT): $(NATIVE) $(LIST) $(wildcard hummingbird/dataplane/build*.py) setup.py pyproject.toml | ready
	@echo "compiling the data plane"
	@touch $@.begun
	@$(PY) setup.py -q build_ext --inplace --force
	@mv $@.begun $@

$(LIST): FORCE
	@mkdir -p build
	@echo '$(NATIVE) $(OPTIONAL)' | cmp -s - $@ || echo '$(NATIVE) $(OPTIONAL)' >$@
