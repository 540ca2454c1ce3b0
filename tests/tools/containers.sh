#!/usr/bin/env bash
# docker-compose.yml on a real container engine, where this machine has one that answers; else it is skipped by name.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

skip() {
  echo "SKIPPED: compose::the_services_come_up_together_and_measure ($1)"
  [ "${USPX_REQUIRE_DOCKER:-}" != 1 ]
  exit
}
docker info >/dev/null 2>&1 || skip "no container engine answers here"
docker compose version >/dev/null 2>&1 || docker-compose version >/dev/null 2>&1 || skip "no compose here"

export USPX_BIN=${USPX_BIN:-$(realpath -m "${CARGO_TARGET_DIR:-$root/target}")/debug/uspx}
cd "$root/tests/containers"
export CARGO_TARGET_DIR="$root/target/containers"
cargo fmt --check
cargo nextest run --locked
