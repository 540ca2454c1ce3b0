#!/usr/bin/env bash
# The heavy comparisons with other people's readings of the same models (some 7 GB of Python on the first run):
#   golden.py  the values that the tests of the engine are held to (tests/data/nano.json), computed anew with PyTorch
#   export.sh  the 4-bit writers against PyTorch, gptqmodel and llama.cpp
# Prints one JSON object a line; exits with the first comparison that fails.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd "$here/../.." && pwd)"
torch="$("$here/venv.sh")/bin/python"
log="$(mktemp)"
trap 'rm -f "$log"' EXIT
"$torch" "$here/golden.py" "$root" --check "$root/tests/data/nano.json" 2>"$log" || { status=$?; cat "$log" >&2; exit "$status"; }
"$here/export.sh"
