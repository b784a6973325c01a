#!/usr/bin/env bash
# Train in two stages, stage1.json and then stage2.json: scripts/recipes/two_stages.sh [RECIPE] [ARGUMENTS]
# RECIPE: curriculum (default): small crops, then large ones; gopro: the guide, then VRT behind it (docs/gopro.md).
# ARGUMENTS, such as the number of GPUs, go to ./launch_train.sh for both; no option file, task or path.root. The same
# command resumes where it stopped. Exit code 0: both stages are finished; otherwise that of the training, or 1 if a stage
# stopped before its last step without an error.
set -euo pipefail
ROOT="$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
# shellcheck source=scripts/shell_lib.sh
source "$ROOT/scripts/shell_lib.sh"

# best_of_finished TASK: print the run's best weights; fails if its last step has no checkpoint or no test.
best_of_finished() {
    local python
    python="$("$ROOT/scripts/setup_env.sh")"
    (cd "$ROOT" && "$python" -c '
import pathlib, sys
from utils.utils_run_folder import RunFolder
run = RunFolder(pathlib.Path("experiments", sys.argv[1]))
if not run.is_finished():
    sys.exit(1)
print(run.best)' "$1")
}

recipe=curriculum
if [[ "${1:-}" == curriculum || "${1:-}" == gopro ]]; then
    recipe="$1"
    shift
fi
for argument in "$@"; do
    case "$argument" in
        *.json | --opt* | --demo | task=* | path.root=* | --set=task=* | --set=path.root=*)
            die 2 "two_stages.sh sets its own option files and tasks; leave out $argument"
            ;;
    esac
done

child="" # no process yet to forward signals to
for stage in stage1 stage2; do
    task="${recipe}_$stage" code=0
    trap 'forward_signal 10 USR1' USR1
    run_stoppable "$ROOT/launch_train.sh" "$ROOT/options/vrt/$recipe/$stage.json" "$@" || code=$?
    trap - USR1
    if ((code)); then exit "$code"; fi
    best="$(best_of_finished "$task")" || die 1 "$stage is not finished: its last step has no checkpoint or no test; run the same command to resume"
done
say "both stages are finished; to measure the result, and not the weights that stage2.json starts from:"
say "./launch_test.sh options/vrt/$recipe/stage2.json --set path.pretrained_netG=$best"
