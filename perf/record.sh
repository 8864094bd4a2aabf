#!/usr/bin/env bash
# Takes all measurements and keeps them in perf/results/, each with machine, commit and command.
#
#   perf/record.sh [NAME ...]      of: compare allocations latency scaling instructions flamegraph; default: all
#
# For numbers to keep: a committed tree, a machine that nothing else runs on, the traces in place (ATLAS_TRACES).
set -euo pipefail
cd "$(dirname "$0")/.."
results=perf/results
[ $# -gt 0 ] || set -- compare allocations latency scaling instructions flamegraph
cargo build --release --quiet -p perf
program=target/release/perf

keep() { # file, then the command as it is shown and run
    local file=$results/$1
    shift
    echo "$file: $*" >&2
    # Shown as it is typed.
    { echo "\`${*/#$program/cargo run --release -p perf --}\`"; echo; "$@"; } >"$file.new"
    mv "$file.new" "$file"
}
for name in "$@"; do
    case $name in
    compare)
        # One run for both forms.
        keep compare.md "$program" compare --json-file "$results/compare.json" ;;
    allocations) keep allocations.md "$program" allocations ;;
    latency) keep latency.md "$program" latency --plot "$results/latency.svg" ;;
    scaling)
        keep scaling.md "$program" scaling --batch 1024 --work-ns 1000
        keep scaling-hot.md "$program" scaling --batch 1024 --work-ns 2000 --accounts 100
        keep scaling-puts.md "$program" scaling --batch 1024 --workload kv-put ;;
    instructions) keep instructions.md perf/instructions.sh ;;
    flamegraph)
        perf/flamegraph.sh "$results/transfers.svg" --workload transfer --way forced --batches 50000
        perf/flamegraph.sh "$results/puts.svg" --workload kv-put --way forced --batch 1024 --batches 5000 ;;
    *) echo "record.sh: unknown: $name" >&2; exit 2 ;;
    esac
done
