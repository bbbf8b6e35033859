# Sourced by every script here: where things are, and how a step is shown.
#
#   ROOT    the repository
#   STATE   everything that is made at run time: stage, clusters, logs
#   STAGE   a private PostgreSQL tree, the only one the extension is put into
#   LOGS    one directory a run

set -euo pipefail
umask 022 # what is made here is read by the postgres user too

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
PG=${PG:-15}
PGRX_VERSION=0.18.1
RUST_NEEDED=1.95
PG_HOME=/usr/lib/postgresql/$PG
SERVER_USER=postgres # who runs the servers when make is run by root

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$ROOT/target}
# One set of compiler flags for cargo and cargo-pgrx, so that one build serves both.
export CARGO_PGRX_DISABLE_GC_SECTIONS_WORKAROUND=1
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-auto}
# cargo-pgrx and psql take their target from these when they are set
unset PGRX_PG_CONFIG_PATH PG_VERSION PGHOST PGPORT PGUSER PGDATABASE PGDATA PGSERVICE PGOPTIONS PGPASSWORD

is_root() { [ "$(id -u)" -eq 0 ]; }

# Servers refuse to run as root: then the postgres user has to reach the state.
reachable_by_server() {
    ! is_root || ! id "$SERVER_USER" >/dev/null 2>&1 ||
        (cd / && runuser -u "$SERVER_USER" -- test -r "$1" -a -x "$1")
}

default_state() {
    mkdir -p "$ROOT/target"
    if reachable_by_server "$ROOT/target"; then
        echo "$ROOT/target"
    else
        local elsewhere
        elsewhere=/var/tmp/enrichment_cache.$(printf %s "$ROOT" | cksum | cut -d' ' -f1)
        mkdir -p "$elsewhere"
        [ -O "$elsewhere" ] || {
            echo "error: $elsewhere belongs to somebody else" >&2
            return 1
        }
        echo "$elsewhere"
    fi
}

if [ -z "${ENRICHMENT_STATE:-}" ]; then
    ENRICHMENT_STATE=$(default_state)
    # for tests started by a plain `cargo test`
    if [ "$(cat "$ROOT/target/enrichment-state" 2>/dev/null)" != "$ENRICHMENT_STATE" ]; then
        printf '%s\n' "$ENRICHMENT_STATE" >"$ROOT/target/enrichment-state.$$"
        mv "$ROOT/target/enrichment-state.$$" "$ROOT/target/enrichment-state"
    fi
fi
export ENRICHMENT_STATE
STATE=$ENRICHMENT_STATE
STAGE=$STATE/stage
STAGE_PGTEST=$STATE/stage-pgtest
mkdir -p "$STATE"

export ENRICHMENT_LOGS=${ENRICHMENT_LOGS:-$STATE/logs/$(date +%Y%m%d-%H%M%S)-$$}
LOGS=$ENRICHMENT_LOGS

make_logs() {
    [ ! -d "$LOGS" ] || return 0
    mkdir -p "$LOGS" "$STATE/logs"
    ln -sfn "$(basename "$LOGS")" "$STATE/logs/latest"
    # the last twenty runs are kept
    find "$STATE/logs" -mindepth 1 -maxdepth 1 -type d -name '20*' | sort -r | tail -n +21 |
        while IFS= read -r old; do rm -rf "$old"; done
}

CARGO_PGRX_HOME=${XDG_CACHE_HOME:-$HOME/.cache}/enrichment_cache/cargo-pgrx-$PGRX_VERSION
PATH=$CARGO_PGRX_HOME/bin:$PATH
command -v cargo >/dev/null 2>&1 || PATH=$PATH:$HOME/.cargo/bin
export PATH

say() { printf '%s  %s\n' "$(date +%H:%M:%S)" "$*"; }

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# A line a minute until its input is closed.
still_at_it() {
    local what=$1 log=$2 began=$SECONDS code _line
    while true; do
        code=0
        read -r -t 60 _line || code=$?
        [ "$code" -gt 128 ] || return 0
        say "  still at it: $what ($((SECONDS - began)) s, log: $log)"
    done
}

# step NAME 'what is done' command...
# Runs the command with its output in $LOGS/NAME.log: a line at the start, one a
# minute while it lasts, and the end of the log when it fails.
step() {
    local name=$1 what=$2 log=$LOGS/$1.log began=$SECONDS code=0
    shift 2
    make_logs
    say "$what"
    exec 8> >(still_at_it "$what" "$log")
    "$@" </dev/null >"$log" 2>&1 8>&- || code=$?
    exec 8>&-
    STEP_SECONDS=$((SECONDS - began))
    if [ "$code" -ne 0 ]; then
        {
            printf -- '----- the last lines of %s\n' "$log"
            tail -n 150 "$log"
            printf -- '-----\n'
            say "failed after $STEP_SECONDS s: $what (whole log: $log)"
        } >&2
    fi
    return "$code"
}

# locked NAME command...: one at a time in this clone
locked() {
    local name=$1
    shift
    (
        exec 9>"$STATE/$name.lock"
        flock 9
        "$@" 9>&-
    )
}
