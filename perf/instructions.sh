#!/usr/bin/env bash
# Instructions per operation, counted by callgrind: the sequential loop, and the engine ahead of turn on one thread.
#
#   perf/instructions.sh [FEW MANY]
#
# Each way executes FEW and MANY batches of 128 operations. The difference, divided by the operations between the two, has
# neither start-up nor population in it; what making the batches costs is counted the same way and taken off. Nothing
# depends on a clock: there is no busy work, and chunks have a fixed size.
set -euo pipefail
cd "$(dirname "$0")/.."
few=${1:-100}
many=${2:-1100}
command -v valgrind >/dev/null || { echo "instructions.sh needs valgrind" >&2; exit 2; }
cargo build --release --quiet -p perf

count() { # way, batches, workload and its options
    local way=$1 batches=$2
    shift 2
    valgrind --tool=callgrind --callgrind-out-file=/dev/null target/release/perf fixed --workload "$@" \
        --way "$way" --batches "$batches" --batch 128 --chunk 16 2>&1 >/dev/null |
        sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}

per_operation() { # way, workload and its options
    local way=$1 a b
    shift
    a=$(count "$way" "$few" "$@")
    b=$(count "$way" "$many" "$@")
    echo $((10 * (b - a) / ((many - few) * 128)))
}

row() { # workload and its options
    local none loop engine
    none=$(per_operation none "$@")
    loop=$(($(per_operation loop "$@") - none))
    engine=$(($(per_operation alone "$@") - none))
    printf '| %s | %d.%d | %d.%d | %d.%02d |\n' "$*" $((loop / 10)) $((loop % 10)) $((engine / 10)) $((engine % 10)) \
        $((engine / loop)) $((100 * (engine % loop) / loop))
}

target/release/perf machine
echo
echo "| workload | loop | engine, one thread | engine / loop |"
echo "|---|---:|---:|---:|"
row transfer
row kv-put --keys 10000
row kv-update --keys 10000
row kv-merge --keys 10000
row ycsb-a --keys 10000
row branch
