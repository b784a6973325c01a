# shellcheck shell=bash
# Shared by the shell scripts: messages, and child processes that signals stop. To be sourced.

say() { printf '%s\n' "$*" >&2; }

ADVICE="" # what `die` adds to its message
# die CODE MESSAGE: print one line on stderr and exit (2: the user can fix it, 1: a failure).
die() {
    local code=$1
    shift
    say "error: $*$ADVICE"
    exit "$code"
}

# forward_signal NUMBER NAME: forward a signal to the command of run_stoppable, whose exit code becomes 128 + NUMBER.
forward_signal() {
    local number=$1 name=$2
    stopped=$((128 + number))
    if [[ -n "$child" ]]; then kill "-$name" -- "-$child" 2>/dev/null || true; fi
}

# run_stoppable COMMAND...: run it in its own process group, so that a signal to this script reaches the command and all
# of its children. Returns the command's exit code, never 0 after a signal.
run_stoppable() {
    local child="" code=0 stopped=0
    trap 'forward_signal 1 HUP' HUP
    trap 'forward_signal 2 INT' INT
    trap 'forward_signal 15 TERM' TERM
    set -m
    "$@" &
    child=$!
    set +m
    if ((stopped)); then kill -TERM -- "-$child" 2>/dev/null || true; fi # the signal came before the child
    wait "$child" || code=$?
    while kill -0 "$child" 2>/dev/null; do # a signal ended the wait, not the child
        code=0
        wait "$child" || code=$?
    done
    trap - HUP INT TERM
    if ((stopped)); then
        kill -TERM -- "-$child" 2>/dev/null || true # children that outlived the command
        if ((code == 0)); then code=$stopped; fi
    fi
    return "$code"
}
