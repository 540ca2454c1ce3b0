#!/usr/bin/env bash
# Makes sure that cargo-nextest is there; builds it from crates.io where it is not.
set -euo pipefail
cargo nextest --version >/dev/null 2>&1 && exit 0
echo "installing cargo-nextest"
cargo install --locked cargo-nextest
