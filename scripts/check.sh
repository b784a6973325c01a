#!/usr/bin/env bash
# Set-up, lint, format, types and all tests; arguments go to pytest: ./scripts/check.sh -m "not slow"
# Tests run in one process per core, at most four; -n 0 runs all in one, for --pdb and -s. Exit code 0 only if every
# step passed.
set -euo pipefail
ROOT="$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
SETUP_DEV=1
# shellcheck source=scripts/setup_env.sh
source "$ROOT/scripts/setup_env.sh"
cd "$ROOT"

cores="$(getconf _NPROCESSORS_ONLN)"
workers=$((cores < 4 ? cores : 4))

summary="" failed=0
step() {
    local name=$1 began=$SECONDS code=0 verdict=ok
    shift
    say "== $name"
    run_stoppable "$@" || code=$?
    if ((code > 128)); then exit "$code"; fi # a signal: stop here
    if ((code != 0)); then
        failed=1
        verdict="FAILED (exit code $code)"
    fi
    summary+="$(printf '%-12s %4d s  %s' "$name" "$((SECONDS - began))" "$verdict")"$'\n'
}

say "python: $PYTHON"
step "ruff check" "$PYTHON" -m ruff check .
step "ruff format" "$PYTHON" -m ruff format --check .
step "mypy" "$PYTHON" -m mypy
# Whole files, the longest first; a worker that pytest ends because it hangs is not restarted.
step "pytest" "$PYTHON" -m pytest -n "$workers" --dist loadfile --no-loadscope-reorder --max-worker-restart 0 \
    --durations=15 "$@"
printf '\n%s' "$summary"
exit "$failed"
