#!/usr/bin/env bash
# Breaks the engine in one place at a time and demands that the model named beside it notices.
set -euo pipefail
exec python3 "$(dirname "$0")/../loom-tests/mutants.py" shuttle-tests "$@"
