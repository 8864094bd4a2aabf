"""Runs the mutants: each is one edit of the sources that some model must catch.

A mutant fails this program if the model still passes (it survived), if it does not build, or if its text does not occur
exactly once. An optional argument selects mutants by a part of their name.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TREE = ROOT / "target" / "mutants" / "tree"

# (name, file, text, replacement, model)
MUTANTS = [
    ("gate opens without publishing the job", "src/raw/gate.rs",
     "gate.word.store(word.0, Ordering::Release);",
     "gate.word.store(word.0, Ordering::Relaxed);", "gate::"),
    ("a worker leaves without publishing its work", "src/raw/gate.rs",
     "self.gate.word.fetch_sub(Word::JOINED_ONE, Ordering::Release);",
     "self.gate.word.fetch_sub(Word::JOINED_ONE, Ordering::Relaxed);", "gate::"),
    ("a worker takes part twice in a job", "src/raw/gate.rs",
     "if !word.is_open() || word.seq() == self.last {",
     "if !word.is_open() {", "gate::"),
    ("a sleeper does not look again", "src/pool/sleep.rs",
     "if called() && self.wake_one(worker) {",
     "if false && called() && self.wake_one(worker) {", "pool::"),
    ("a sleeper is not fenced", "src/pool/sleep.rs",
     "        fence(Ordering::SeqCst);\n        if called()",
     "        if called()", "pool::"),
    ("the waker is not fenced", "src/pool/sleep.rs",
     "        // S4.\n        fence(Ordering::SeqCst);", "        // S4.", "pool::"),
    ("a result is not published", "src/raw/slots.rs",
     "self.word.store(ptr::from_mut(result), Ordering::Release);",
     "self.word.store(ptr::from_mut(result), Ordering::Relaxed);", "slots::"),
    ("a result is taken without seeing it", "src/raw/slots.rs",
     "compare_exchange(seen, claimed(), Ordering::Acquire, Ordering::Relaxed)",
     "compare_exchange(seen, claimed(), Ordering::Relaxed, Ordering::Relaxed)", "slots::"),
    ("the retire lock is released without publishing", "src/raw/try_lock.rs",
     "self.lock.locked.store(false, Ordering::Release);",
     "self.lock.locked.store(false, Ordering::Relaxed);", "try_lock::"),
    ("a stamp is set before its version", "src/raw/table.rs",
     "slot.tag.store(tag, Ordering::Release);",
     "slot.tag.store(tag, Ordering::Relaxed);", "table::"),
    ("a newer version is not published", "src/raw/table.rs",
     "slot.entry.store(value, Ordering::Release);",
     "slot.entry.store(value, Ordering::Relaxed);", "table::"),
    ("a grown table is not published", "src/raw/table.rs",
     "self.current.store(table, Ordering::Release);",
     "self.current.store(table, Ordering::Relaxed);", "table::"),
    ("the walker does not look again", "src/retire.rs",
     "self.is_stopped() || !self.slots.is_done(frontier) {",
     "self.is_stopped() || true {", "retire::"),
    ("the walker is not fenced", "src/retire.rs",
     "            fence(Ordering::SeqCst);\n            // R4.", "            // R4.", "retire::"),
    ("the finisher is not fenced", "src/retire.rs",
     "        // R2.\n        fence(Ordering::SeqCst);", "        // R2.", "retire::"),
    ("two threads take one chunk", "src/raw/chunks.rs",
     "let index = self.next.fetch_add(1, Ordering::Relaxed);",
     "let index = self.next.load(Ordering::Relaxed);\n        self.next.store(index + 1, Ordering::Relaxed);",
     "chunks::"),
]


def copy_tree():
    """A copy of the files that git knows, with untouched times so that builds stay incremental."""
    shutil.rmtree(TREE, ignore_errors=True)
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True)
    for name in names.stdout.splitlines():
        source = ROOT / name
        if source.is_file():
            (TREE / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, TREE / name)


def run(model, arguments=()):
    environment = dict(os.environ, LOOM_TARGET_DIR=str(ROOT / "target" / "mutants" / "build"), LOOM_TIMEOUT="120")
    command = ["bash", "loom-tests/run.sh", model, *arguments]
    return subprocess.run(command, cwd=TREE, env=environment, capture_output=True, text=True)


def verdict(name, file, text, replacement, model):
    path = TREE / file
    original = path.read_text()
    if original.count(text) != 1:
        return f"its text occurs {original.count(text)} times"
    path.write_text(original.replace(text, replacement))
    try:
        result = run(model)
    finally:
        path.write_text(original)
    output = result.stdout + result.stderr
    if result.returncode == 0:
        return "SURVIVED"
    if "could not compile" in output:
        return "does not build"
    if "panicked" not in output and result.returncode != 124:
        return "failed for another reason than the model"
    return None


def main():
    chosen = [mutant for mutant in MUTANTS if len(sys.argv) < 2 or sys.argv[1] in mutant[0]]
    copy_tree()
    failures = 0
    for mutant in chosen:
        problem = verdict(*mutant)
        failures += problem is not None
        print(f"{'caught  ' if problem is None else 'PROBLEM '} {mutant[0]} ({mutant[4]})"
              + (f": {problem}" if problem else ""), flush=True)
    print(f"{len(chosen) - failures} passed, {failures} failed")
    sys.exit(1 if failures else 0)


main()
