#!/bin/sh
# Runs uspx where a supervisor starts a failed program again (`restart: on-failure`). What another start would only repeat ends
# with 0 here, after a line that says so: a usage error (2), a bad file or value (3), what a check refused (6).
uspx "$@" &
child=$!
trap 'kill -TERM "$child" 2>/dev/null' TERM INT
wait "$child"
code=$?
# A signal ends `wait` before the program ends.
while kill -0 "$child" 2>/dev/null; do
    wait "$child"
    code=$?
done
case $code in
    2 | 3 | 6)
        echo "uspx-service: exit code $code is for a person to look at: uspx is not started again" >&2
        exit 0
        ;;
esac
exit "$code"
