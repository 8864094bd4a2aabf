#!/usr/bin/env bash
# Weakens the engine in one place at a time and demands that the model named beside it fails.
set -euo pipefail
exec python3 "$(dirname "$0")/mutants.py" loom-tests "$@"
