#!/usr/bin/env bash
# Independent proof of SAELens' files: SAEs of every architecture that is read here are saved by SAELens, features and
# reconstructions of random rows compared with ours, and with SAELens' own on what we wrote. Prints one JSON object.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd "$here/../.." && pwd)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
venv="$("$here/venv.sh")"
"$venv/bin/pip" install --quiet --constraint "$here/requirements.txt" --requirement "$here/requirements-saelens.txt" >&2

profile="${USPX_PARITY_PROFILE:-release}"
(cd "$root" && cargo build --profile "$profile" --quiet --workspace --example saelens)
example="${CARGO_TARGET_DIR:-$root/target}/${profile/#dev/debug}/examples/saelens"
"$venv/bin/python" "$here/saelens_peer.py" "$example" "$work"
