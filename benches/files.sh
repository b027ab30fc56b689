#!/usr/bin/env bash
# Measures `meshgate ingress --from` on a folder of Ingresses: start, memory, reload. Prints Markdown.
# Usage: benches/files.sh [--ingresses N] [--rounds N] [--meshgate PATH]
# Needs curl and openssl. Each Ingress has a host and a TLS Secret of its own, in a file of its own.
set -euo pipefail
ingresses=1000 rounds=5 meshgate=
while (($#)); do
  case $1 in
    --ingresses) ingresses=$2 ;;
    --rounds) rounds=$2 ;;
    --meshgate) meshgate=$(realpath "$2") ;;
    *) echo "unknown: $1" >&2; exit 1 ;;
  esac
  shift 2
done
cd "$(dirname "$0")/.."
if [ -z "$meshgate" ]; then
  cargo build --release --locked --quiet
  target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
  meshgate=$target/$(rustc -vV | sed -n 's/^host: //p')/release/meshgate
fi

dir=$(mktemp -d) pid=
trap 'if [ -n "$pid" ]; then kill "$pid" 2>/dev/null || true; fi; rm -rf "$dir"' EXIT
mkdir "$dir/conf"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=bench.test \
  -addext subjectAltName=DNS:*.bench.test -keyout "$dir/key" -out "$dir/cert" 2>/dev/null
cert=$(base64 -w0 "$dir/cert") key=$(base64 -w0 "$dir/key")

ingress() { # number, path
  cat <<END
apiVersion: v1
kind: Secret
metadata: {name: tls-$1, namespace: default}
type: kubernetes.io/tls
data: {tls.crt: $cert, tls.key: $key}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: site-$1, namespace: default}
spec:
  tls: [{hosts: [h$1.bench.test], secretName: tls-$1}]
  rules:
  - host: h$1.bench.test
    http: {paths: [{path: $2, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}
END
}
cat >"$dir/conf/web.yaml" <<END
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {ports: [{port: 80, targetPort: 80}]}
END
for ((i = 0; i < ingresses; i++)); do ingress $i / >"$dir/conf/site-$i.yaml"; done

now() { echo $(($(date +%s%N) / 1000000)); }
# There are no endpoints: 503 says that the route is there, 404 that it is not.
status() { curl -s -o /dev/null -w '%{http_code}' -H "Host: h$((ingresses - 1)).bench.test" "http://$address$1" || true; }
until_status() { until [ "$(status "$1")" = "$2" ]; do :; done; }
median() { printf '%s\n' "$@" | sort -n | sed -n "$((($# + 1) / 2))p"; }
last=$dir/conf/site-$((ingresses - 1)).yaml

starts=() reloads=()
for ((round = 0; round < rounds; round++)); do
  ingress $((ingresses - 1)) / >"$last"
  port=$((20000 + RANDOM % 10000))
  address=127.0.0.1:$port
  began=$(now)
  "$meshgate" ingress --from "$dir/conf" --http "$address" --https "127.0.0.1:$((port + 1))" >"$dir/log" 2>&1 &
  pid=$!
  until_status / 503
  starts+=($(($(now) - began)))
  ingress $((ingresses - 1)) /new >"$dir/beside"
  began=$(now)
  mv "$dir/beside" "$last"
  until_status / 404
  reloads+=($(($(now) - began)))
  memory=$(awk '/^Pss:/ {print int($2 / 1024)}' "/proc/$pid/smaps_rollup")
  kill "$pid"
  wait "$pid" || true
  pid=
done
echo "| $ingresses Ingresses with certificates, in $((ingresses + 1)) files | median of $rounds |"
echo "|---|---:|"
echo "| from start to the first answer | $(median "${starts[@]}") ms |"
echo "| from a changed file to the changed answer | $(median "${reloads[@]}") ms |"
echo "| proportional memory after that | $memory MiB |"
