#!/usr/bin/env bash
# Looks for known vulnerabilities among the dependencies (RustSec, by cargo-audit). Where the tool or
# its database is out of reach it says so by name, and ends well: a check that could not run is no
# finding.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
database="$root/.tools/advisory-db"
skip() { echo "SKIPPED advisories: $1"; exit 0; }

cargo audit --version >/dev/null 2>&1 || skip "cargo-audit is not there (cargo install cargo-audit)"
if [ -d "$database/.git" ]; then
  timeout 30 git -C "$database" pull --quiet --ff-only || echo "advisories: the database is as old as its last fetch"
else
  timeout 60 git clone --quiet --depth 1 https://github.com/RustSec/advisory-db "$database" 2>/dev/null \
    || { rm -rf "$database"; skip "the advisory database cannot be reached"; }
fi
cargo audit --no-fetch --db "$database" --file "$root/Cargo.lock"
