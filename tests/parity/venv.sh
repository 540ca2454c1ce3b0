#!/usr/bin/env bash
# Makes the virtual environment of the parity checks (PyTorch, transformers, gptqmodel) and prints its path.
# It is heavy (some 7 GB, minutes) and therefore kept: a stamp holds the hash of the requirement files, and a venv whose
# stamp agrees is used as it is.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd "$here/../.." && pwd)"
venv="${USPX_PARITY_VENV:-$root/.tools/venv-parity}"
stamp="$venv/.stamp"
want="$(cat "$here/requirements.txt" "$here/requirements-no-deps.txt" | sha256sum | cut -d' ' -f1)"

if [[ "$(cat "$stamp" 2>/dev/null || true)" != "$want" ]]; then
    rm -rf "$venv"
    "${PYTHON:-python3}" -m venv "$venv" >&2
    "$venv/bin/pip" install --quiet --requirement "$here/requirements.txt" >&2
    "$venv/bin/pip" install --quiet --no-deps --no-build-isolation --requirement "$here/requirements-no-deps.txt" >&2
    printf '%s' "$want" >"$stamp"
fi
printf '%s\n' "$venv"
