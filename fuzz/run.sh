#!/usr/bin/env bash
# Runs the fuzzer for a while: on all targets, or on the one that is named.
#
#   fuzz/run.sh [TARGET]
#
# FUZZ_SECONDS  for each target (60)
#
# It needs cargo-fuzz (`cargo install cargo-fuzz`) and a nightly compiler. Where one is missing it says so, and ends well:
# the corpus, and mutations of it, are replayed on any compiler by `cargo test -p fuzz-targets`. What is found goes to
# fuzz/artifacts; new inputs of the corpus stay in target/fuzz, to be added to fuzz/corpus by hand.
set -euo pipefail
cd "$(dirname "$0")/.."

for tool in "cargo fuzz" "cargo +nightly"; do
    if ! $tool --version >/dev/null 2>&1; then
        echo "fuzzing SKIPPED: \`$tool\` is not here"
        exit 0
    fi
done
targets=("${1:-differential install trace}")
for target in ${targets[*]}; do
    echo "== $target, ${FUZZ_SECONDS:-60} s"
    mkdir -p "target/fuzz/corpus/$target"
    cargo +nightly fuzz run --target-dir target/fuzz/build "$target" "target/fuzz/corpus/$target" "fuzz/corpus/$target" \
        -- -max_total_time="${FUZZ_SECONDS:-60}" -max_len=2048 -timeout=60 -print_final_stats=1
done
