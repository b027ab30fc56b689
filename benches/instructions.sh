#!/usr/bin/env bash
# Counts the instructions that the engine spends on a request, with callgrind: a figure that holds on a noisy machine.
# Usage: benches/instructions.sh [--only PART-OF-A-WORKLOAD'S-NAME] [--write]
#   --write  also writes docs/benchmarks/instructions.md
set -euo pipefail
cd "$(dirname "$0")/.."
arguments=() write=
while (($#)); do
  case $1 in
    --write) write=1; shift ;;
    *) arguments+=("$1"); shift ;;
  esac
done
command -v valgrind >/dev/null || { echo "needs valgrind: apt-get install valgrind" >&2; exit 1; }
table=$(cargo bench --quiet --locked -p meshgate-proxy --bench instructions -- "${arguments[@]}")
echo "$table"
[ -z "$write" ] || cat >docs/benchmarks/instructions.md <<END
# Instructions of a request

\`benches/instructions.sh --write\` counted these: user-space instructions of the thread that serves, each request on
connections that are kept, with metrics and access records on and a thousand hosts. Callgrind counts the same on a noisy
machine; between two runs figures differ by about a hundredth, because events meet in other groups. Compiler:
$(rustc --version | cut -d' ' -f1-2).

$table
END
