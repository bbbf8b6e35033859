#!/usr/bin/env bash
# test-outside.sh [FILTER]: clusters, workers and sandbox providers, seen from outside. The stage must be built.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
. "$ROOT/tools/programs.sh"

cd "$ROOT"
build_programs
cargo test --no-default-features --features outside --test outside --test tidy -- "$@"
