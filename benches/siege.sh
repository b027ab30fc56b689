#!/usr/bin/env bash
# Besieges an edge with slow clients, floods and idle connections at once, and measures what others notice: latency, memory
# against the budget, recovery; prints Markdown.
# Usage: benches/siege.sh [--rounds N] [--seconds S] [--rate REQUESTS_PER_S] [--idle CONNECTIONS] [--memory MIB] [--meshgate PATH]
#   --idle      connections; where the descriptors of one process are too few (ulimit -Hn), several edges share them
#   --meshgate  measures that binary instead of building one
# Needs two cores, and util-linux.
set -euo pipefail
arguments=() meshgate=
while (($#)); do
  case $1 in
    --meshgate) meshgate=$(realpath "${2:?--meshgate needs a path}"); shift 2 ;;
    *) arguments+=("$1"); shift ;;
  esac
done
cd "$(dirname "$0")/.."
for tool in setpriv taskset chrt; do
  command -v "$tool" >/dev/null || { echo "needs $tool (Debian: util-linux)" >&2; exit 1; }
done
target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
host=$(rustc -vV | sed -n 's/^host: //p')
packages=(-p meshgate-benches)
[ -n "$meshgate" ] || packages+=(-p meshgate)
cargo build --release --locked "${packages[@]}"
export MESHGATE=${meshgate:-$target/$host/release/meshgate}
exec "$target/$host/release/meshgate-benches" siege "${arguments[@]}"
