#!/usr/bin/env bash
# test-outside.sh [FILTER]: clusters, workers and sandbox providers, seen from outside. The stage must be built.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
. "$ROOT/tools/programs.sh"

cd "$ROOT"
build_programs
# the commands of the README are run too, the demo included, in a state directory of its own
export ENRICHMENT_README_DEMO=1
cargo test --no-default-features --features outside --test outside --test tidy -- "$@"
