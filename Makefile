# The one entry point. `make help` lists the targets; what they do is in tools/.
PG ?= 15
export PG

.DEFAULT_GOAL := help
.PHONY: help setup stage build demo demo-stop bench test test-core test-members test-pg test-outside \
        fmt lint install clean-state
# the targets share one target directory and lock each other out anyway
.NOTPARALLEL:

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what is missing: Debian's PostgreSQL 15 with headers, libclang, cargo-pgrx
	@tools/setup.sh

stage: setup ## a private PostgreSQL tree; the system's installation is not touched
	@tools/stage.sh

build: setup ## the extension in release mode, into the private tree
	@bash -c '. tools/common.sh; step build "extension in release mode, into the private tree" tools/build.sh'

demo: setup ## the whole thing at work against sandbox providers
	@tools/demo.sh run

demo-stop: ## stop the demo's server and providers
	@tools/demo.sh stop

bench: setup ## times and sizes against plain PostgreSQL, into docs/performance.md (BENCH_SCALE=0.1: a tenth of the data)
	@tools/bench.sh

test: setup ## all tests
	@tools/test.sh

test-core: setup ## pure tests and layout rules, without PostgreSQL
	@tools/test.sh core

test-members: setup ## the tests of sandbox, test bed, demo and benchmarks
	@tools/test.sh members

test-pg: setup ## the tests in the database
	@tools/test.sh pg

test-outside: setup ## clusters, workers and sandbox providers, seen from outside
	@tools/test.sh outside

fmt: ## format the code
	@cargo fmt --all

lint: setup ## format and clippy, without changing anything
	@tools/lint.sh

install: ## into your own server: make install PG_CONFIG=/path/to/pg_config
	@FOR_OWN_SERVER=$(PG_CONFIG) tools/setup.sh
	@tools/install.sh

clean-state: ## remove stages, clusters and logs (compiled code stays)
	@tools/clean-state.sh
