#!/usr/bin/env bash
# Installs what is missing: Rust is checked, Debian's packages and cargo-pgrx are installed.
# Looks first, so that it takes no time and no rights when everything is there.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

check_rust() {
    local found
    found=$(rustc --version 2>/dev/null | awk '{print $2}') || true
    if [ -z "$found" ] || ! command -v cargo >/dev/null 2>&1; then
        die "Rust is missing: install $RUST_NEEDED or newer with rustup (https://rustup.rs), then run make again"
    fi
    if [ "$(printf '%s\n%s\n' "$RUST_NEEDED" "$found" | sort -V | head -n 1)" != "$RUST_NEEDED" ]; then
        die "Rust $found is too old: $RUST_NEEDED or newer is needed, 'rustup update stable' brings it (https://rustup.rs)"
    fi
}

installed() { [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

missing_packages() {
    local package
    local packages=("postgresql-$PG" "postgresql-server-dev-$PG" libclang-dev clang pkg-config)
    # a server of the user's own brings its headers itself
    [ -z "${FOR_OWN_SERVER:-}" ] || packages=(libclang-dev clang pkg-config)
    for package in "${packages[@]}"; do
        installed "$package" || printf '%s ' "$package"
    done
    command -v cc >/dev/null 2>&1 || printf '%s ' gcc libc6-dev
}

as_root() {
    if is_root; then
        "$@"
    else
        sudo "$@"
    fi
}

# Debian makes and starts a cluster with every new server package, unless it is told not to.
# None is wanted for what happens here, so it is told so while the package is installed, and
# only then: clusters that exist, and ones made later, are none of our business.
no_default_cluster=/etc/postgresql-common/createcluster.d/enrichment-cache-setup.conf

forget_no_default_cluster() {
    [ -e "$no_default_cluster" ] || return 0
    as_root rm -f "$no_default_cluster"
    as_root rmdir "$(dirname "$no_default_cluster")" 2>/dev/null || true
}

install_packages() {
    local attempt
    for attempt in 1 2 3; do
        # the lock of the package lists knows no waiting
        as_root apt-get update && break
        [ "$attempt" -lt 3 ] || return 1
        sleep 5
    done
    if ! installed "postgresql-$PG"; then
        trap forget_no_default_cluster EXIT
        as_root mkdir -p "$(dirname "$no_default_cluster")"
        echo "create_main_cluster = false" | as_root tee "$no_default_cluster" >/dev/null
    fi
    # shellcheck disable=SC2068
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        -o DPkg::Lock::Timeout=300 $@ || return 1
    forget_no_default_cluster
}

check_rust
if command -v dpkg-query >/dev/null 2>&1; then
    missing=$(missing_packages)
    missing=${missing% }
    if [ -n "$missing" ]; then
        command -v apt-get >/dev/null 2>&1 || die "install these packages first: $missing"
        is_root || command -v sudo >/dev/null 2>&1 ||
            die "these packages are missing and there is no sudo here: as root, run 'apt-get install $missing'"
        # sudo asks for its password here, where it can be seen
        is_root || sudo -v || die "these packages are missing: as root, run 'apt-get install $missing'"
        # shellcheck disable=SC2086
        step apt "installing with apt: $missing" install_packages $missing
    fi
elif [ -z "${FOR_OWN_SERVER:-}" ] && [ ! -x "$PG_HOME/bin/pg_config" ]; then
    die "PostgreSQL $PG with its server headers, clang and libclang are needed in the places Debian has them ($PG_HOME)"
fi

install_cargo_pgrx() {
    [ "$("$CARGO_PGRX_HOME/bin/cargo-pgrx" pgrx --version 2>/dev/null)" = "cargo-pgrx $PGRX_VERSION" ] && return 0
    # a target directory of its own: nothing of it is of use later
    CARGO_TARGET_DIR=$CARGO_PGRX_HOME/build cargo install --locked "cargo-pgrx@$PGRX_VERSION" --root "$CARGO_PGRX_HOME" --force
    rm -rf "$CARGO_PGRX_HOME/build"
}

if [ "$("$CARGO_PGRX_HOME/bin/cargo-pgrx" pgrx --version 2>/dev/null)" != "cargo-pgrx $PGRX_VERSION" ]; then
    mkdir -p "$CARGO_PGRX_HOME"
    step cargo-pgrx "building cargo-pgrx $PGRX_VERSION, once for this machine (about four minutes)" \
        flock "$CARGO_PGRX_HOME.lock" bash -c "$(declare -f install_cargo_pgrx); set -e
            PGRX_VERSION=$PGRX_VERSION; CARGO_PGRX_HOME='$CARGO_PGRX_HOME'; install_cargo_pgrx"
fi
