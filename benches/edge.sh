#!/usr/bin/env bash
# Measures the release build: the edge under wrk and h2load, start-up, memory, how fast changes are enforced.
# Usage: benches/edge.sh [--rounds N] [--seconds S] [--only start|memory|load|propagation]. MESHGATE=path measures another binary.
set -euo pipefail
cd "$(dirname "$0")/.."
for tool in wrk:wrk h2load:nghttp2-client; do
  command -v "${tool%%:*}" >/dev/null || { echo "needs ${tool%%:*}: apt-get install ${tool##*:}" >&2; exit 1; }
done
cargo build --release --locked -p meshgate -p meshgate-benches
target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
release=$target/$(rustc -vV | sed -n 's/^host: //p')/release
export MESHGATE=${MESHGATE:-$release/meshgate}
exec "$release/meshgate-benches" "$@"
