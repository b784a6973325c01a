#!/usr/bin/env bash
# Train in two stages, options/vrt/curriculum/stage1.json and then stage2.json: scripts/recipes/two_stages.sh [ARGUMENTS]
# ARGUMENTS go to ./launch_train.sh for both, such as the number of GPUs; no option file, no task, no path.root.
# The same command again goes on where it stopped. Exit code 0: both stages are finished; else that of the training, or 1
# if a stage stopped before its last step without an error.
set -euo pipefail
ROOT="$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
# shellcheck source=scripts/shell_lib.sh
source "$ROOT/scripts/shell_lib.sh"

# last_step TASK: train.total_iter of the run's options.
last_step() { sed -n 's/^ *"total_iter": *\([0-9][0-9]*\).*/\1/p' "$ROOT/experiments/$1/options.json"; }

for argument in "$@"; do
    case "$argument" in
        *.json | --opt* | --demo | task=* | path.root=* | --set=task=* | --set=path.root=*)
            die 2 "two_stages.sh has its own option files and tasks; leave out $argument"
            ;;
    esac
done

child="" # nothing runs yet that a signal could be handed on to
for stage in stage1 stage2; do
    task="curriculum_$stage" code=0
    trap 'forward_signal 10 USR1' USR1
    run_stoppable "$ROOT/launch_train.sh" "$ROOT/options/vrt/curriculum/$stage.json" "$@" || code=$?
    trap - USR1
    if ((code)); then exit "$code"; fi
    last="$ROOT/experiments/$task/models/$(last_step "$task")_state.pth"
    if [[ ! -f "$last" ]]; then die 1 "$stage is not finished, there is no $last; the same command goes on"; fi
done
say "both stages are finished; to measure the result, whose weights are not those that stage2.json starts from:"
say "./launch_test.sh options/vrt/curriculum/stage2.json --set path.pretrained_netG=experiments/$task/models/best_G.pth"
