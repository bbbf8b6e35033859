#!/usr/bin/env bash
# The in-database tests. They have a stage of their own, because cargo-pgrx installs a debug library
# with test functions, which must never replace the release one.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# it would lead cargo-pgrx past the stage below
unset PGRX_PG_CONFIG_PATH

"$ROOT/tools/stage.sh" "$STAGE_PGTEST"
pg_config=$STAGE_PGTEST$PG_HOME/bin/pg_config
"$ROOT/tools/pgrx-home.sh" "$STATE/pgrx-home-pgtest" "$pg_config"

# short, as a socket's path has at most 107 bytes
data=$(mktemp -d /tmp/enrichment-pgtest.XXXXXX)
finish() {
    local pid_file
    for pid_file in "$data"/data/*/postmaster.pid; do
        [ ! -e "$pid_file" ] || kill -QUIT "$(head -n 1 "$pid_file")" 2>/dev/null || true
    done
    rm -rf "$data"
}
trap finish EXIT

export PGRX_HOME=$STATE/pgrx-home-pgtest
as_server_user=()
if is_root; then
    chown "$SERVER_USER" "$data"
    chmod 0755 "$data"
    as_server_user=(--runas "$SERVER_USER")
    PATH=$ROOT/tools/sudo-stand-in:$PATH
fi

run() {
    cd "$ROOT"
    cargo-pgrx pgrx test "pg$PG" "$1" --no-default-features --features "pg$PG pg_test" \
        "${as_server_user[@]}" --pgdata "$data/data"
}

# the pure tests have run already: only those in the database, or what is asked for
locked test-pg run "${1:-in_database::}"
