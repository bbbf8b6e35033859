#!/usr/bin/env bash
# pgrx-home.sh HOME PG_CONFIG: a PGRX_HOME that knows one server, so that the user's ~/.pgrx is not touched.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

export PGRX_HOME=$1
pg_config=$2
major=$("$pg_config" --version | sed -E 's/^PostgreSQL ([0-9]+).*/\1/')

grep -qsF "\"$pg_config\"" "$PGRX_HOME/config.toml" && exit 0
mkdir -p "$PGRX_HOME"
# --no-run: no data directory is wanted; test servers take free ports of their own
cargo-pgrx pgrx init "--pg$major" "$pg_config" --no-run
