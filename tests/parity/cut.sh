#!/usr/bin/env bash
# Independent proof of `uspx mask export`: for the shipped teacher and student and a checkpoint of every architecture, the
# written folder's logits in transformers
#   · against transformers on the whole model, the cut experts' router logits at -inf, what cut heads and channels give at 0,
#     at every position
#   · against ours on the whole model under the mask, at the last positions
# Prints one JSON object a line; exits with the first comparison that fails.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd "$here/../.." && pwd)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
torch="$("$here/venv.sh")/bin/python"

profile="${USPX_PARITY_PROFILE:-release}"
(cd "$root" && cargo build --profile "$profile" --quiet --workspace --example parity)
parity="${CARGO_TARGET_DIR:-$root/target}/${profile/#dev/debug}/examples/parity"

# What a program says is only shown when it fails.
quietly() { "$@" 2>"$work/log" || { status=$?; cat "$work/log" >&2; exit "$status"; }; }

for name in $("$torch" "$here/cut_cases.py" "$root" "$work"); do
    case="$work/$name"
    "$parity" cut "$case/model" "$case/keep.json" "$case/cut" >"$work/report.json"
    "$parity" masked "$case/model" "$case/keep.json" "$case/ids.json" >"$case/ours.json"
    quietly "$torch" "$here/cut_logits.py" "$case/model" "$case/keep.json" "$case/cut" "$case/ids.json"
    quietly "$torch" "$here/compare.py" "$case/ours.json" "$case/cut/logits.json" --bound 1e-4
done
