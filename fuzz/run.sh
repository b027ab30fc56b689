#!/usr/bin/env bash
# Fuzzes each claim for a while, one after the other; the first finding ends it.
# Usage: fuzz/run.sh [--seconds S] [--minimise] [CLAIM…]
#   --seconds   for each claim; 600 unless said otherwise
#   --minimise  adds to the committed corpus what covers most of what was found, in a few files
# Needs Rust, a C++ compiler and Go. cargo-fuzz is installed below the target folder where it is absent.
set -euo pipefail
cd "$(dirname "$0")"
seconds=600 minimise=
claims=()
while (($#)); do
  case $1 in
    --seconds) seconds=${2:?--seconds needs a number}; shift 2 ;;
    --minimise) minimise=1; shift ;;
    *) claims+=("$1"); shift ;;
  esac
done
((${#claims[@]})) || mapfile -t claims < <(basename -s .rs targets/*.rs)

target=$(cargo metadata --manifest-path ../Cargo.toml --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/fuzz
host=$(rustc -vV | sed -n 's/^host: //p')
export CARGO_TARGET_DIR=$target
PATH=$target/tools/bin:$PATH
command -v cargo-fuzz >/dev/null || cargo install --quiet --locked --root "$target/tools" --target-dir "$target/tools/build" cargo-fuzz@0.13.2
export MESHGATE_GO_READER=$target/tools/bin/go-reader
(cd readers/go && go build -o "$MESHGATE_GO_READER" .)
# The sanitizer and its coverage are behind a flag of the nightly compiler, which the stable one takes when told so.
export RUSTC_BOOTSTRAP=1
cargo fuzz build --fuzz-dir .

# What people named stays. Beside it the longest few of the inputs that cover all: the repository is no archive.
minimise() { # claim
  local found
  found=$(mktemp -d -p "$target")
  find "corpus/$1" -type f -regextype egrep -regex '.*/[0-9a-f]{40}' -exec mv {} "$target/corpus/$1/" \;
  "$target/$host/release/$1" -set_cover_merge=1 -use_counters=0 -max_len=512 -verbosity=0 "$found" "$target/corpus/$1"
  (cd "$found" && ls -S | sed -n 1,6p | xargs -r cp -t "$OLDPWD/corpus/$1/")
  rm -r "$found"
}

for claim in "${claims[@]}"; do
  # What it finds anew is collected apart: the committed corpus changes only by --minimise.
  mkdir -p "$target/corpus/$claim" "$target/findings/$claim"
  program=$target/$host/release/$claim
  echo "== $claim, ${seconds} s"
  "$program" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 -detect_leaks=0 -verbosity=0 \
    -artifact_prefix="$target/findings/$claim/" "$target/corpus/$claim" "corpus/$claim"
  [ -z "$minimise" ] || minimise "$claim"
done
