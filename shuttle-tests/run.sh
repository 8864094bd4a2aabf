#!/usr/bin/env bash
# Explores random schedules of the whole engine: by all models, or by those whose name contains the first argument.
#
#   shuttle-tests/run.sh [FILTER]
#   shuttle-tests/run.sh --lint     lints what only these builds contain
#
# A model that fails prints the seed of the schedule, and the command that runs this one schedule again:
#
#   SHUTTLE_SEED=SEED SHUTTLE_SCHEDULES=1 bash shuttle-tests/run.sh NAME
#
# SHUTTLE_SEED        seed of the first schedule (1); each of the following takes the next number
# SHUTTLE_SCHEDULES   schedules of each model, instead of the model's own number
# SHUTTLE_TARGET_DIR  build directory (target/shuttle): `--cfg shuttle` rebuilds everything, so it is kept apart
# SHUTTLE_TIMEOUT     seconds for the whole run (600)
set -euo pipefail
source "$(dirname "$0")/../loom-tests/models.sh" shuttle "$@"
# Not `--foreground`: a model that never ends must end with its `cargo`.
exec timeout "${SHUTTLE_TIMEOUT:-600}" \
    cargo test --quiet --release -p shuttle-tests --lib -- --nocapture "$@"
