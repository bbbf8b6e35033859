#!/usr/bin/env bash
# Installs the extension into the server that PG_CONFIG belongs to (default: the system's PostgreSQL).
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

pg_config=$(command -v "${PG_CONFIG:-$PG_HOME/bin/pg_config}") ||
    die "no pg_config at ${PG_CONFIG:-$PG_HOME/bin/pg_config}: set PG_CONFIG to your server's"
major=$("$pg_config" --version | sed -E 's/^PostgreSQL ([0-9]+).*/\1/')
grep -q "^pg$major = " "$ROOT/Cargo.toml" || die "PostgreSQL $major is not supported"

export PGRX_HOME=$STATE/pgrx-home-install-$major
rm -rf "$PGRX_HOME"
step pgrx-home "reading $pg_config" "$ROOT/tools/pgrx-home.sh" "$PGRX_HOME" "$pg_config"
sudo=()
[ -w "$("$pg_config" --pkglibdir)" ] || sudo=(--sudo)
cd "$ROOT"
step install "extension in release mode, into $("$pg_config" --pkglibdir)" \
    cargo-pgrx pgrx install --release --no-default-features --features "pg$major" --pg-config "$pg_config" ${sudo[@]+"${sudo[@]}"}
cat <<END
Installed for $("$pg_config" --version). In your database:
    CREATE EXTENSION enrichment_cache;
and in postgresql.conf, followed by a restart, for the background worker:
    shared_preload_libraries = 'enrichment_cache'
END
