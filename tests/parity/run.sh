#!/usr/bin/env bash
# The heavy comparisons with other people's readings of the same models (some 7 GB of Python on the first run):
#   golden.py         the values that the tests of the engine are held to (tests/data/nano.json), computed anew with PyTorch
#   trace_golden.py   the same for what a trace tells (tests/data/trace.json)
#   config_meanings.py  what transformers makes of every key of config.json (tests/data/config_meanings.json), computed anew
#   architectures.py  the same for the committed checkpoints of every architecture; then other random ones, larger, drawn
#                     from USPX_PARITY_SEED (default: the time), and the engine's tests on those
#   tokens/tokens.py  conversations' tokens against transformers: tokenizers of many families x templates x awkward texts
#   cut.sh            models without the experts, or heads and channels, that a mask cuts, against the whole ones without these
#   export.sh         the 4-bit writers against PyTorch, gptqmodel and llama.cpp, tokens included; the adapter against peft
#   saelens.sh        sparse autoencoders in SAELens' files, read and written, against SAELens
# Prints one JSON object a line; exits with the first comparison that fails.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd "$here/../.." && pwd)"
torch="$("$here/venv.sh")/bin/python"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

# What a program says is only shown when it fails.
quietly() {
    "$@" 2>"$work/log" || { status=$?; cat "$work/log" >&2; exit "$status"; }
}

quietly "$torch" "$here/golden.py" "$root" --check "$root/tests/data/nano.json"
quietly "$torch" "$here/trace_golden.py" "$root" --check "$root/tests/data/trace.json"
quietly "$torch" "$here/config_meanings.py" --check
quietly "$torch" "$here/architectures.py" --check
seed="${USPX_PARITY_SEED:-$(date +%s)}"
quietly "$torch" "$here/architectures.py" --fresh --seed "$seed" --out "$work/fresh"
cd "$root"
# Not the gradients: gpt-oss clamps its experts, and where a random value lies within 1e-5 of the clamp the gradient jumps
# by some percent, in plain floats as well.
USPX_ARCHITECTURES="$work/fresh" cargo test --quiet --workspace --test engine -- architectures relevance_agrees --skip gradients >&2
printf '{"fresh_architectures": %s, "seed": %s, "agree": true}\n' "$(find "$work/fresh" -name golden.json | wc -l)" "$seed"
quietly "$torch" "$here/tokens/tokens.py" --check
quietly "$torch" "$here/tokens/tokens.py" --out "$work/tokens"
# Of what the test says, its count of rows.
USPX_TOKENS="$work/tokens" cargo test --quiet --workspace --test engine tokens:: -- --nocapture | grep '^{'
"$here/export.sh"
quietly "$here/saelens.sh"
"$here/cut.sh"
