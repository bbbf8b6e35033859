#!/usr/bin/env bash
# bench.sh: builds what is missing, then measures and writes docs/performance.md. BENCH_SCALE, BENCH_ROUNDS,
# BENCH_ONLY, BENCH_DOCS: see the end of that document.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
. "$ROOT/tools/programs.sh"

cd "$ROOT"
step build "extension in release mode, into a private PostgreSQL tree (about three minutes the first time)" "$ROOT/tools/build.sh"
step bench-build "the benchmark program and the sandbox providers" \
    cargo build --release -p enrichment-bench -p enrichment-sandbox
export ENRICHMENT_SANDBOX=$CARGO_TARGET_DIR/release/enrichment-sandbox
export BENCH_DOCS=${BENCH_DOCS:-$ROOT/docs}
# what is measured, where there is version control
if revision=$(git rev-parse --short HEAD 2>/dev/null); then
    # what make bench itself writes is no change of what is measured
    git diff --quiet HEAD -- . ':!docs' 2>/dev/null || revision="$revision with changes"
    export BENCH_REVISION=$revision
fi
exec "$CARGO_TARGET_DIR/release/enrichment-bench"
