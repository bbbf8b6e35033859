#!/usr/bin/env bash
# stage.sh DIRECTORY: makes a private PostgreSQL tree, where the extension is put.
#
# PostgreSQL finds its files relative to its own binary, so a copy of the binaries beside links to
# everything else is a whole installation of its own; the system's stays as it was. The binaries
# are copies because PostgreSQL resolves links to find itself.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

stage=${1:-$STAGE}
system_share=/usr/share/postgresql/$PG
[ -x "$PG_HOME/bin/postgres" ] || die "PostgreSQL $PG is not installed: run 'make setup'"

# What the tree was made from: another server version or another set of extensions makes it anew.
fingerprint() {
    "$PG_HOME/bin/postgres" --version
    stat -c '%Y %s' "$PG_HOME/bin/postgres"
    ls "$PG_HOME/lib" "$system_share" "$system_share/extension"
}

# An enrichment_cache of the system's must not be seen, nor written through a link.
link_all() {
    local from=$1 to=$2 entry
    mkdir -p "$to"
    for entry in "$from"/*; do
        case ${entry##*/} in
            enrichment_cache* | extension) ;;
            *) ln -s "$entry" "$to/" ;;
        esac
    done
}

make_stage() {
    local wanted new old
    wanted=$(fingerprint | cksum)
    [ "$(cat "$stage/.made-from" 2>/dev/null)" != "$wanted" ] || return 0
    new=$stage.new.$$ old=$stage.old.$$
    mkdir -p "$new$PG_HOME/bin" "$new/usr/include"
    cp -L "$PG_HOME"/bin/* "$new$PG_HOME/bin/"
    link_all "$PG_HOME/lib" "$new$PG_HOME/lib"
    link_all "$system_share" "$new$system_share"
    link_all "$system_share/extension" "$new$system_share/extension"
    ln -s /usr/include/postgresql "$new/usr/include/postgresql"
    printf '%s\n' "$wanted" >"$new/.made-from"
    [ ! -e "$stage" ] || mv "$stage" "$old"
    mv "$new" "$stage"
    rm -rf "$old"
    [ "$("$stage$PG_HOME/bin/pg_config" --sharedir)" = "$stage$system_share" ] ||
        die "$stage is not a tree of its own: its pg_config points to $("$stage$PG_HOME/bin/pg_config" --sharedir)"
}

locked "$(basename "$stage")" make_stage
