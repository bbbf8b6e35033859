#!/usr/bin/env bash
# demo.sh run|stop: builds what is missing, then hands over to the demo program.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
. "$ROOT/tools/programs.sh"

case ${1:-run} in
    run)
        step build "extension in release mode, into a private PostgreSQL tree (about three minutes the first time)" \
            "$ROOT/tools/build.sh"
        step programs "sandbox providers and demo program" build_programs
        ;;
    stop)
        [ -x "$ENRICHMENT_DEMO" ] || {
            say "no demo has been started here"
            exit 0
        }
        ;;
    *) die "demo.sh run|stop" ;;
esac
exec "$ENRICHMENT_DEMO" "$@"
