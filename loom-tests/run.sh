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
source "$(dirname "$0")/../loom-tests/models.sh" loom "$@"
exec timeout --foreground "${LOOM_TIMEOUT:-480}" \
    cargo test --quiet --release -p loom-tests --lib -- --nocapture "$@"
