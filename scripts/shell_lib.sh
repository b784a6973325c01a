# shellcheck shell=bash
# What the shell scripts share: messages, and children that a signal stops. For `source`.

say() { printf '%s\n' "$*" >&2; }

# die CODE MESSAGE: one line on stderr, then the exit code (2: the user can mend it, 1: a failure).
die() {
    local code=$1
    shift
    say "error: $*"
    exit "$code"
}

# Within run_stoppable: hand a signal on to the command. NUMBER is what the shell adds to 128 for it.
forward_signal() {
    local number=$1 name=$2
    stopped=$((128 + number))
    if [[ -n "$child" ]]; then kill "-$name" -- "-$child" 2>/dev/null || true; fi
}

# run_stoppable COMMAND...: run it in a process group of its own, so that a signal to this script, even to it alone,
# reaches the command and all that it started. Returns the command's exit code, never 0 after a signal.
run_stoppable() {
    local child="" code=0 stopped=0
    trap 'forward_signal 1 HUP' HUP
    trap 'forward_signal 2 INT' INT
    trap 'forward_signal 15 TERM' TERM
    set -m
    "$@" &
    child=$!
    set +m
    if ((stopped)); then kill -TERM -- "-$child" 2>/dev/null || true; fi # it came before there was a child
    wait "$child" || code=$?
    while kill -0 "$child" 2>/dev/null; do # a signal ended the wait, not the child
        code=0
        wait "$child" || code=$?
    done
    trap - HUP INT TERM
    if ((stopped)); then
        kill -TERM -- "-$child" 2>/dev/null || true # what outlived the command
        if ((code == 0)); then code=$stopped; fi
    fi
    return "$code"
}
