#!/usr/bin/env bash
# Suites that others wrote, against our edge and sidecar: h2spec, gRPC's interoperability tests, Autobahn's WebSocket cases, slowhttptest.
# Usage: tests/foreign/run.sh [h2spec|grpc|websocket|slow]…
# Needs Rust, Go, Python and Debian's slowhttptest; what else they need is installed below the target folder.
# Everything stays on loopback. MESHGATE names the binary to test; it is built where the variable is not set.
set -euo pipefail
cd "$(dirname "$0")/../.."
# What is installed; a new one is a change of its own.
h2spec=v2.2.1+incompatible grpc=v1.85.0 kosoku=0.1.0

need() { # command, Debian package
  command -v "$1" >/dev/null && return
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2" >&2
  else
    echo "needs $1 (Debian: $2)" >&2
    exit 1
  fi
}
need go golang-go
need python3 python3-venv
need slowhttptest slowhttptest

target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
host=$(rustc -vV | sed -n 's/^host: //p')
tools=$target/foreign
export H2SPEC=$tools/h2spec-$h2spec/h2spec GRPC_INTEROP=$tools/grpc-$grpc KOSOKU=$tools/kosoku-$kosoku/bin/kosoku
[ -x "$H2SPEC" ] || GOBIN=$(dirname "$H2SPEC") go install "github.com/summerwind/h2spec/cmd/h2spec@$h2spec"
if [ ! -x "$GRPC_INTEROP/server" ]; then
  GOBIN=$GRPC_INTEROP go install "google.golang.org/grpc/interop/client@$grpc" "google.golang.org/grpc/interop/server@$grpc"
fi
if [ ! -x "$KOSOKU" ]; then
  python3 -m venv "$tools/kosoku-$kosoku"
  "$tools/kosoku-$kosoku/bin/pip" install --quiet --disable-pip-version-check "kosoku==$kosoku"
fi

packages=(-p meshgate-foreign)
[ -n "${MESHGATE:-}" ] || packages+=(-p meshgate)
cargo build --release --locked "${packages[@]}"
export MESHGATE=${MESHGATE:-$target/$host/release/meshgate}
exec "$target/$host/release/meshgate-foreign" "$@"
