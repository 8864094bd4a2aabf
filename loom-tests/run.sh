#!/usr/bin/env bash
# Runs the loom models: all of them, or those whose name contains the first argument.
#
#   loom-tests/run.sh [FILTER]
#   loom-tests/run.sh --lint     lints what only these builds contain
#
# LOOM_MAX_PREEMPTIONS  preemptions per schedule, instead of each model's own bound (2, or 3 where that is cheap)
# LOOM_MAX_BRANCHES     thread switches per schedule before it counts as endless (20000)
# LOOM_TARGET_DIR       build directory (target/loom): `--cfg loom` rebuilds everything, so it is kept apart
# LOOM_TIMEOUT          seconds for the whole run (480)
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR="${LOOM_TARGET_DIR:-target/loom}"
export RUSTFLAGS="--cfg loom ${RUSTFLAGS:-}"
# Release, or it takes minutes; with the assertions that users' debug builds have.
export CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true CARGO_PROFILE_RELEASE_DEBUG=0
export CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_INCREMENTAL=true
if [ "${1:-}" = --lint ]; then
    exec cargo clippy --quiet --release -p loom-tests --all-targets -- -D warnings
fi
cargo test --quiet --release -p loom-tests --lib --no-run
exec timeout --foreground "${LOOM_TIMEOUT:-480}" \
    cargo test --quiet --release -p loom-tests --lib -- --nocapture "$@"
