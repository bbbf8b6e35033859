#!/usr/bin/env bash
# Builds the extension in release mode and puts it into the stage. Nothing is done when the
# sources are older than what stands there.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

"$ROOT/tools/stage.sh" "$STAGE"
pg_config=$STAGE$PG_HOME/bin/pg_config
stamp=$STAGE/.extension-built
package=$STATE/package

sources=("$ROOT/src" "$ROOT/sql" "$ROOT/Cargo.toml" "$ROOT/enrichment_cache.control" "$ROOT/tools/build.sh")
[ ! -e "$ROOT/Cargo.lock" ] || sources+=("$ROOT/Cargo.lock")

# directories are looked at too: their times show files that are gone
up_to_date() {
    [ -e "$stamp" ] && [ "$(cat "$stamp")" = "$(rustc --version)" ] &&
        [ -z "$(find "${sources[@]}" -newer "$stamp" -print -quit)" ]
}

# Servers that run have the old library mapped: it is replaced by a rename, never written over.
put() {
    local file=$1 directory=$2 name
    name=$(basename "$file")
    if ! cmp -s "$file" "$directory/$name"; then
        cp "$file" "$directory/.$name.$$"
        chmod 0644 "$directory/.$name.$$"
        mv -f "$directory/.$name.$$" "$directory/$name"
    fi
}

build() {
    local began=$STAGE/.extension-began.$$ file script
    up_to_date && return 0
    rustc --version >"$began"
    rm -rf "$package"
    "$ROOT/tools/pgrx-home.sh" "$STATE/pgrx-home" "$pg_config"
    (cd "$ROOT" && PGRX_HOME=$STATE/pgrx-home cargo-pgrx pgrx package --no-default-features --features "pg$PG" \
        --pg-config "$pg_config" --out-dir "$package")
    # the section that holds the schema can be lost in linking, and nothing would say so
    script=$(find "$package" -name 'enrichment_cache--*.sql' -exec grep -l 'CREATE  *FUNCTION' {} + | head -n 1)
    [ -n "$script" ] || die "the packaged extension has no functions: the schema was lost in linking"
    while IFS= read -r file; do
        case $file in
            *.so) put "$file" "$("$pg_config" --pkglibdir)" ;;
            *.sql | *.control) put "$file" "$("$pg_config" --sharedir)/extension" ;;
        esac
    done < <(find "$package" -type f)
    mv "$began" "$stamp"
}

locked build build
