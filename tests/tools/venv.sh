#!/usr/bin/env bash
# Makes .tools/venv-test, the Python that the tests use (an S3 API, llama.cpp), unless it is there already.
# Its stamp is the hash of the requirement files and of Python's version: a change of either makes it anew.
# Safe to run any number of times, and from several tests at once.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
venv="$root/.tools/venv-test"
python=${PYTHON:-python3}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || {
  echo "venv.sh: Python 3.10 or newer is needed for the tests: install python3 and python3-venv, or set PYTHON" >&2
  exit 1
}
wanted=$( { "$python" -VV; cat "$here"/requirements-test*.txt; } | sha256sum | cut -c1-64)

mkdir -p "$root/.tools"
exec 9>"$root/.tools/venv-test.lock"
if command -v flock >/dev/null; then flock 9; fi

if [ "$(cat "$venv/stamp" 2>/dev/null)" = "$wanted" ]; then exit 0; fi

echo "venv.sh: preparing .tools/venv-test (once)" >&2
log="$root/.tools/venv-test.log"
# The scripts in a venv name their own path, so it is made in place; the stamp comes last.
{
  rm -rf "$venv" \
    && "$python" -m venv "$venv" \
    && "$venv/bin/pip" install --disable-pip-version-check --quiet -r "$here/requirements-test.txt" \
    && "$venv/bin/pip" install --disable-pip-version-check --quiet --no-deps -r "$here/requirements-test-nodeps.txt" \
    && "$venv/bin/python" -c 'import moto, numpy, xllamacpp'
} >"$log" 2>&1 || {
  echo "venv.sh: it failed; what was said is in .tools/venv-test.log (python3-venv missing? no package index?)" >&2
  exit 1
}
echo "$wanted" >"$venv/stamp"
