#!/usr/bin/env bash
# Format and clippy, for the pure part, the members and the part that needs PostgreSQL.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

cd "$ROOT"
step fmt "format" cargo fmt --all --check
step clippy-core "clippy: core, io, tests from outside" \
    cargo clippy --no-default-features --features outside --all-targets -- -D warnings
step clippy-members "clippy: sandbox, test bed, demo, benchmarks" \
    cargo clippy -p enrichment-sandbox -p testbed -p enrichment-demo -p enrichment-bench --all-targets -- -D warnings
"$ROOT/tools/stage.sh" "$STAGE_PGTEST"
"$ROOT/tools/pgrx-home.sh" "$STATE/pgrx-home-pgtest" "$STAGE_PGTEST$PG_HOME/bin/pg_config"
export PGRX_HOME=$STATE/pgrx-home-pgtest
step clippy-pg "clippy: the extension" \
    cargo clippy --no-default-features --features "pg$PG" --lib -- -D warnings
step clippy-pg-test "clippy: the tests in the database" \
    cargo clippy --no-default-features --features "pg$PG pg_test" --lib --tests -- -D warnings
say "no complaints"
