#!/usr/bin/env bash
# On a machine with a CUDA card: run the tests that need one, then every GPU benchmark, within nine minutes. Installs
# nothing; uses $PYTHON, else python3. Logs go to ${OUT:-.}/gpu_check/. Exit code 0 only if every step passed.
set -euo pipefail
ROOT="$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck source=scripts/shell_lib.sh
source "$ROOT/scripts/shell_lib.sh"
PYTHON="${PYTHON:-python3}"
LOGS="${OUT:-.}/gpu_check"
mkdir -p "$LOGS"
LOGS="$(cd "$LOGS" && pwd)"
cd "$ROOT"

"$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' ||
    die 2 "$PYTHON finds no CUDA card or no torch; set PYTHON to one that does"
"$PYTHON" -c 'import torch; p = torch.cuda.get_device_properties(0)
print(p.name, f"{p.total_memory / 2**30:.0f} GiB,", f"compute capability {p.major}.{p.minor}, torch {torch.__version__}")'

summary="" failed=0
# step NAME SECONDS COMMAND...: run it with a time limit; its output goes to a log and the screen.
step() {
    local name=$1 limit=$2 began=$SECONDS code=0 verdict=ok
    shift 2
    say "== $name"
    PYTHONUNBUFFERED=1 timeout "$limit" "$@" 2>&1 | tee "$LOGS/$name.log" || code=$?
    if ((code != 0)); then
        failed=1
        verdict="FAILED (exit code $code)"
        if ((code == 124)); then verdict="FAILED (over $limit s)"; fi
    fi
    summary+="$(printf '%-14s %4d s  %s' "$name" "$((SECONDS - began))" "$verdict")"$'\n'
}

step tests 180 "$PYTHON" -m pytest -q -m gpu
step deform_conv 120 "$PYTHON" benchmarks/deform_conv.py
if [[ -f benchmarks/network.py ]]; then
    step network 230 "$PYTHON" benchmarks/network.py
fi
printf '\n%-14s %6s  %s\n%s' step time result "$summary" | tee "$LOGS/summary.txt"
exit "$failed"
