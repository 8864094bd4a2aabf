"""Runs the mutants of a package's mutants.toml: each is one edit of the sources that some model of it must catch.

The first argument is the package, `loom-tests` or `shuttle-tests`; its models are run by its run.sh. A mutant fails this
program if the model still passes (it survived), if it does not build, if its text does not occur exactly once, or if the
model neither passes nor fails in time. The models must pass without any edit, or what they say about the mutants would
mean nothing: they are run first, unless MUTANTS_BASELINE=passed says that they just were. An optional second argument
selects mutants by a part of their name or of their model's.
"""

import os
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = sys.argv[1]
# What its run.sh calls its variables.
PREFIX = PACKAGE.split("-")[0].upper()
WORK = ROOT / "target" / "mutants" / PACKAGE
TREE = WORK / "tree"
BUILD = os.environ.get("MUTANTS_TARGET_DIR", str(WORK / "build"))
SECONDS = os.environ.get("MUTANTS_TIMEOUT", "120")
TIMED_OUT = 124
TABLE = tomllib.loads((ROOT / PACKAGE / "mutants.toml").read_text())


def copy_tree():
    """Copies the files that git knows or would know."""
    shutil.rmtree(TREE, ignore_errors=True)
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    for name in names.stdout.splitlines():
        source = ROOT / name
        if source.is_file():
            (TREE / name).parent.mkdir(parents=True, exist_ok=True)
            # Not `copy2`: an old time stamp would make cargo take the last run's mutant for this source.
            shutil.copy(source, TREE / name)


def run(*models, seconds=SECONDS):
    # A mutant is built once and run for a moment: optimising it takes longer than it saves, and of small units few are built
    # again.
    environment = {
        **os.environ,
        **TABLE.get("environment", {}),
        f"{PREFIX}_TARGET_DIR": BUILD,
        f"{PREFIX}_TIMEOUT": seconds,
        "CARGO_PROFILE_RELEASE_OPT_LEVEL": "1",
        "CARGO_PROFILE_RELEASE_CODEGEN_UNITS": "256",
    }
    command = ["bash", f"{PACKAGE}/run.sh", "--exact", *models]
    result = subprocess.run(command, cwd=TREE, env=environment, capture_output=True, text=True)
    return result.returncode, result.stdout + result.stderr


def check_baseline(models):
    code, output = run(*models, seconds="480")
    passed = [line for line in output.splitlines() if "model " in line and " iterations" in line]
    if code != 0 or len(passed) < len(models):
        print(output)
        sys.exit("the models must pass on the unchanged sources first")


def verdict(mutant):
    path = TREE / mutant["file"]
    original = path.read_text()
    count = original.count(mutant["text"])
    if count != 1:
        return f"its text occurs {count} times in {mutant['file']}"
    path.write_text(original.replace(mutant["text"], mutant["replacement"]))
    try:
        code, output = run(mutant["model"])
    finally:
        path.write_text(original)
    if code == 0:
        return "SURVIVED" if "1 passed" in output else "no such model"
    if "could not compile" in output:
        return "does not build:\n" + output
    if code == TIMED_OUT:
        return f"neither caught nor survived within {SECONDS} s"
    # A race on what a mutant frees too early may end the process by a signal: that is caught, too.
    if "panicked" not in output and "signal" not in output:
        return "failed for another reason than the model:\n" + output
    return None


def main():
    part = sys.argv[2] if len(sys.argv) > 2 else ""
    chosen = [mutant for mutant in TABLE["mutant"] if part in mutant["name"] or part in mutant["model"]]
    if not chosen:
        sys.exit(f"no mutant is called {part!r}")
    copy_tree()
    models = sorted({mutant["model"] for mutant in chosen})
    # One has everything built, which counts as no mutant's time.
    check_baseline(models[:1] if os.environ.get("MUTANTS_BASELINE") == "passed" else models)
    failures = 0
    started = time.monotonic()
    for mutant in chosen:
        before = time.monotonic()
        problem = verdict(mutant)
        failures += problem is not None
        word = "caught  " if problem is None else "PROBLEM "
        detail = f": {problem}" if problem else f", {time.monotonic() - before:.1f} s"
        print(f"{word} {mutant['name']} ({mutant['model']}){detail}", flush=True)
    elapsed = time.monotonic() - started
    print(f"{len(chosen) - failures} mutants caught, {failures} problems, {elapsed:.0f} s")
    sys.exit(1 if failures else 0)


main()
