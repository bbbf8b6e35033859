#!/usr/bin/env bash
# test.sh [LOOP...]: runs the loops named (all when none is), stops at the first failure, sums up.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
. "$ROOT/tools/programs.sh"

began=$SECONDS
summary=()

# what the tests of a log say: passed, failed, ignored
counts() {
    awk '/^test result:/ { p += $4; f += $6; i += $8 }
         END { printf "%d passed", p; if (f) printf ", %d failed", f; if (i) printf ", %d ignored", i }' "$1"
}

finish() {
    local code=$? line
    printf '\n'
    for line in ${summary[@]+"${summary[@]}"}; do printf '%s\n' "$line"; done
    cat "$LOGS"/test-*.log 2>/dev/null | awk '/^test result:/ { p += $4; f += $6 } END { printf "%d passed, %d failed\n", p, f }'
    if [ "$code" -eq 0 ]; then
        printf 'all passed in %d s\n' "$((SECONDS - began))"
    else
        printf 'FAILED after %d s; logs: %s\n' "$((SECONDS - began))" "$LOGS"
    fi
}
trap finish EXIT

tests() {
    local name=$1 what=$2
    shift 2
    if ! step "$name" "$what" "$@"; then
        summary+=("$(printf '%-14s FAILED  %s' "$name" "$(counts "$LOGS/$name.log")")")
        exit 1
    fi
    summary+=("$(printf '%-14s ok      %s, %d s' "$name" "$(counts "$LOGS/$name.log")" "$STEP_SECONDS")")
}

members() {
    build_programs && cargo test -p enrichment-sandbox -p testbed -p enrichment-demo -p enrichment-bench
}

cd "$ROOT"
[ $# -gt 0 ] || set -- core members pg outside
for loop; do
    case $loop in
        core) tests test-core "pure tests and layout rules" cargo test --no-default-features ;;
        members)
            step stage "private PostgreSQL tree" "$ROOT/tools/stage.sh"
            tests test-members "sandbox providers, test bed, demo, benchmarks" members
            ;;
        pg) tests test-pg "tests in the database" "$ROOT/tools/test-pg.sh" ;;
        outside)
            step build "extension in release mode, into the private tree" "$ROOT/tools/build.sh"
            tests test-outside "tests from outside: clusters, workers, providers" "$ROOT/tools/test-outside.sh"
            ;;
        *) die "unknown loop $loop: core, members, pg, outside" ;;
    esac
done
