#!/usr/bin/env bash
# Compares the edge with nginx, HAProxy, hyper and pingora: CPU a request, latency, memory, system calls; prints Markdown.
# Usage: benches/compare.sh [--rounds N] [--seconds S] [--only WORKLOAD] [--meshgate PATH] [--write]
#   --only      memory|memory-http2|http|https|http2|handshake|bodies|bodies-tls|latency|open|syscalls|mesh
#   --meshgate  measures that binary instead of building one
#   --write     also writes docs/benchmarks/comparison.md and .svg
# Needs two cores, and root for mesh. What is absent is installed from Debian's packages; no service is started.
set -euo pipefail
arguments=() meshgate=
while (($#)); do
  case $1 in
    --meshgate) meshgate=$(realpath "${2:?--meshgate needs a path}"); shift 2 ;;
    *) arguments+=("$1"); shift ;;
  esac
done
cd "$(dirname "$0")/.."

missing=()
for tool in nginx:nginx haproxy:haproxy wrk:wrk h2load:nghttp2-client strace:strace taskset:util-linux nsenter:util-linux; do
  # Debian's servers are in sbin, which not everybody's PATH has.
  PATH=$PATH:/usr/sbin command -v "${tool%%:*}" >/dev/null || missing+=("${tool##*:}")
done
if ((${#missing[@]})); then
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "needs Debian's packages ${missing[*]}" >&2
    exit 1
  fi
  # Installing a server starts it, unless this file says no.
  policy=/usr/sbin/policy-rc.d own_policy=
  if [ ! -e $policy ]; then
    own_policy=$policy
    trap 'rm -f "$own_policy"' EXIT
    install -m 755 /dev/stdin $policy <<<$'#!/bin/sh\nexit 101'
  fi
  apt-get update -qq >&2
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
  trap - EXIT
  [ -z "$own_policy" ] || rm "$own_policy"
fi
export PATH=$PATH:/usr/sbin

target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
host=$(rustc -vV | sed -n 's/^host: //p')
packages=(-p meshgate-benches)
[ -n "$meshgate" ] || packages+=(-p meshgate)
cargo build --release --locked "${packages[@]}"
cargo build --release --locked --manifest-path benches/peers/Cargo.toml --target-dir "$target/peers"
export MESHGATE=${meshgate:-$target/$host/release/meshgate}
export PEERS=$target/peers/$host/release
exec "$target/$host/release/meshgate-benches" compare "${arguments[@]}"
