#!/usr/bin/env bash
# Runs the engine's tests under AddressSanitizer and LeakSanitizer, where a nightly toolchain is; a short run under
# valgrind's memcheck, where only that is. Says at the end what was covered and what was skipped.
#
#   tests/sanitizers.sh             whatever is there, the best first
#   tests/sanitizers.sh address     AddressSanitizer and LeakSanitizer
#   tests/sanitizers.sh valgrind    memcheck
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TERM_COLOR=never
host=$(rustc -vV | sed -n 's/^host: //p')

# Limits the address space, of which AddressSanitizer needs terabytes.
crowded=a_thread_that_cannot_be_spawned_is_named_and_none_is_left
# Counts allocations for minutes; the same code runs in the other tests.
counting=nothing_is_allocated_per_operation

has_nightly() { cargo +nightly --version >/dev/null 2>&1; }
has_valgrind() { command -v valgrind >/dev/null; }

address() {
    local log=target/sanitizers/address.log status=0
    mkdir -p target/sanitizers
    # What cannot be allocated is null, as without the sanitizer: a test asks for it.
    ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1 RUSTFLAGS="-Zsanitizer=address" \
        cargo +nightly test -p atlas-smr-execution --lib --tests --features internals --target "$host" \
        --target-dir target/sanitizers --no-fail-fast -- --skip "$crowded" --skip "$counting" >"$log" 2>&1 || status=$?
    grep -E '^test result|ERROR: |SUMMARY: |FAILED' "$log" || true
    if [ "$status" != 0 ]; then
        echo "AddressSanitizer and LeakSanitizer: FAILED; see $log"
        return 1
    fi
    echo "covered: $(grep -c '^test .* ok$' "$log") tests of the engine, under AddressSanitizer and LeakSanitizer"
    echo "skipped: $crowded (limits the address space), $counting (slow, nothing of its own), the program (has an allocator of its own), documentation tests"
    echo "not seen: uses of arena memory after its batch, which the allocator does not know of; lifetimes forbid them (docs/does-not-compile-inside.md)"
}

memcheck() {
    cargo test -p atlas-smr-execution --lib --no-run --quiet
    local tests log=target/valgrind.log
    tests=$(cargo test -p atlas-smr-execution --lib --no-run --message-format=json 2>/dev/null \
        | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -1)
    # Everything of the folder with unsafe code, the pool, and one batch after the other through the whole engine.
    local filters=(raw:: pool:: arena unit::set executor::speculative::tests::an_epoch_wrap executor::handle)
    if ! valgrind --error-exitcode=9 --leak-check=full --errors-for-leak-kinds=definite --fair-sched=yes \
        --log-file="$log" "$tests" --test-threads=1 "${filters[@]}"; then
        echo "memcheck: FAILED; see $log"
        return 1
    fi
    echo "covered: the unit tests matching ${filters[*]} under valgrind's memcheck"
    echo "skipped: all other tests (memcheck runs one thread at a time, some fifty times slower)"
}

case "${1:-best}" in
    address) address ;;
    valgrind) memcheck ;;
    best)
        if has_nightly; then
            address
        elif has_valgrind; then
            memcheck
            echo "skipped: AddressSanitizer and LeakSanitizer (no nightly toolchain)"
        else
            echo "skipped: AddressSanitizer, LeakSanitizer (no nightly toolchain) and memcheck (no valgrind): nothing was covered"
        fi
        ;;
    *)
        echo "usage: $0 [address | valgrind]" >&2
        exit 2
        ;;
esac
