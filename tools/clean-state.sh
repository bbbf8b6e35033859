#!/usr/bin/env bash
# Removes what was made at run time (stages, clusters, logs), not the compiled code.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

for pid_file in "$STATE"/clusters/*/data/postmaster.pid "$STATE"/demo/*/data/postmaster.pid; do
    [ -e "$pid_file" ] || continue
    pid=$(head -n 1 "$pid_file")
    # the number may belong to another program by now
    if [ "$(readlink "/proc/$pid/cwd")" = "$(dirname "$pid_file")" ]; then
        say "stopping the server of $(dirname "$(dirname "$pid_file")")"
        kill -INT "$pid"
        timeout 60 tail --pid="$pid" -f /dev/null || kill -QUIT "$pid"
    fi
done
rm -rf "$STATE"/{stage,stage-pgtest,clusters,demo,logs,package,pgrx-home*} "$STATE"/*.lock
