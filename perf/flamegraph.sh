#!/usr/bin/env bash
# A flame graph of one way to execute one workload.
#
#   perf/flamegraph.sh [OUTPUT.svg [OPTIONS OF `perf fixed`]]
#
# Needs Linux's perf, and nothing else: the graph is drawn by this workspace's own program.
set -euo pipefail
cd "$(dirname "$0")/.."
output=${1:-flamegraph.svg}
shift || true
[ $# -gt 0 ] || set -- --workload transfer --work-ns 0 --way forced --batches 100000
command -v perf >/dev/null || { echo "flamegraph.sh needs perf" >&2; exit 2; }

# Frame pointers make stacks cheap and complete. Built beside the usual target, which is left as it is.
export RUSTFLAGS="-C force-frame-pointers=yes" CARGO_TARGET_DIR=target/frame-pointers
cargo build --release --quiet -p perf
program=$CARGO_TARGET_DIR/release/perf
data=$(mktemp)
trap 'rm -f "$data"' EXIT
perf record --quiet -e cpu-clock -F 1999 --call-graph fp -o "$data" -- "$program" fixed "$@" >&2
perf script --force -i "$data" 2>/dev/null | "$program" flamegraph --title "perf fixed $*" >"$output"
echo "$output"
