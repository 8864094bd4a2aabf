# Sourced by `loom-tests/run.sh` and `shuttle-tests/run.sh`, with the name of the cfg in `$1` and the rest of their arguments
# after it: sets up the build, and lints or builds the package `$1-tests`.
model=$1
shift
cd "$(dirname "${BASH_SOURCE[0]}")/.."
target="${model^^}_TARGET_DIR"
export CARGO_TARGET_DIR="${!target:-target/$model}"
export RUSTFLAGS="--cfg $model ${RUSTFLAGS:-}"
# Release, or it takes minutes; with the assertions that users' debug builds have.
export CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true CARGO_PROFILE_RELEASE_DEBUG=0
export CARGO_PROFILE_RELEASE_CODEGEN_UNITS="${CARGO_PROFILE_RELEASE_CODEGEN_UNITS:-16}"
export CARGO_PROFILE_RELEASE_INCREMENTAL=true
if [ "${1:-}" = --lint ]; then
    exec cargo clippy --quiet --release -p "$model-tests" --all-targets -- -D warnings
fi
cargo test --quiet --release -p "$model-tests" --lib --no-run
