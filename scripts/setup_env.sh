#!/usr/bin/env bash
# Find or create the Python that runs this project. `source scripts/setup_env.sh` sets $PYTHON; run as a program, it
# prints the path. In order of preference:
#   1. $PYTHON, if set: it must satisfy requirement.txt
#   2. the active environment (venv, conda) or the python3 on PATH, if it satisfies requirement.txt
#   3. .venv in the checkout, created on first use with uv if available, else with pip
# SETUP_DEV=1 adds requirement-dev.txt, which the checks need; SETUP_CPU=1 takes PyTorch without CUDA; SETUP_LOCK=1 takes
# .venv, not an active environment, with the exact versions of requirement.lock. Nothing is installed outside .venv.
# Copies of the lists in it mark a finished installation; one that was interrupted is finished by the next call.
set -euo pipefail

SETUP_ROOT="$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck source=scripts/shell_lib.sh
source "$SETUP_ROOT/scripts/shell_lib.sh"
VENV="$SETUP_ROOT/.venv"
LISTS=(requirement.txt)
if [[ -n "${SETUP_DEV:-}" ]]; then LISTS+=(requirement-dev.txt); fi
SOURCES=("${LISTS[@]}") # what .venv is filled from
if [[ -n "${SETUP_LOCK:-}" ]]; then SOURCES+=(requirement.lock); fi

is_python_310() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null
}

# Silent on success, else prints one line on stderr.
satisfies_requirements() {
    if ! is_python_310 "$1"; then
        say "it is not Python 3.10 or newer"
        return 2
    fi
    "$1" "$SETUP_ROOT/scripts/check_requirements.py" "${LISTS[@]/#/$SETUP_ROOT/}"
}

is_installed() {
    local list
    [[ -x "$VENV/bin/python" ]] || return 1
    for list in "${SOURCES[@]}"; do
        cmp -s "$SETUP_ROOT/$list" "$VENV/installed_$list" || return 1
    done
}

# find_python CHECK NAME...: prints the path of the first of the given Pythons that passes a check.
find_python() {
    local check=$1 name
    shift
    for name in "$@"; do
        if command -v "$name" >/dev/null && "$check" "$name" 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    return 1
}

# Whether .venv is whole: packages for the rest of an attempt to make it would go to the Python that it came from.
is_venv() {
    [[ -x "$VENV/bin/python" && (-f "$VENV/pyvenv.cfg" || -d "$VENV/conda-meta") ]] && is_python_310 "$VENV/bin/python"
}

make_venv() {
    local base has_uv=false
    if command -v uv >/dev/null; then has_uv=true; fi
    base="$(find_python is_python_310 python3 python python3.14 python3.13 python3.12 python3.11 python3.10)" || $has_uv ||
        die 2 "no Python 3.10 or newer on PATH; install one (uv and conda need no root for it), or set PYTHON to its path"
    rm -rf "$VENV"
    if $has_uv; then
        uv venv --quiet --python "${base:-3.12}" "$VENV" || die 1 "uv could not make .venv; its message is above"
    elif ! "$base" -m venv "$VENV" >/dev/null; then
        rm -rf "$VENV"
        die 1 "$base cannot make a virtual environment; install uv or, on Debian and Ubuntu, python3-venv (apt, as root)"
    fi
}

# pip_install ARGUMENTS...: pip's output goes to a file; the user sees only the large downloads and the last step.
pip_install() {
    local log="$VENV/install.log" line
    PIP_USER=0 "$VENV/bin/python" -m pip install --disable-pip-version-check --progress-bar off \
        "$@" 2>&1 | tee "$log" | while IFS= read -r line; do
        case "$line" in
            *Downloading*[MG]B\)*) say "  downloading ${line##*Downloading }" ;;
            *"Using cached"*[MG]B\)*) say "  using ${line##*Using cached }" ;;
            "Installing collected packages"*) say "  installing all of them, about a minute" ;;
        esac
    done || die 1 "the installation failed: $(grep -i '^error' "$log" | tail -n 1 | cut -c 1-300) (whole log: ${log#"$PWD/"})"
}

fill_venv() {
    local arguments=() list
    for list in "${LISTS[@]}"; do arguments+=(-r "$SETUP_ROOT/$list"); done
    if [[ -n "${SETUP_LOCK:-}" ]]; then arguments+=(-c "$SETUP_ROOT/requirement.lock"); fi
    say "installing the packages of ${SOURCES[*]} into .venv, once: PyTorch and its dependencies,"
    if [[ -n "${SETUP_CPU:-}" ]]; then
        export UV_TORCH_BACKEND=cpu
        say "without CUDA; this takes 1 to 5 minutes"
    else
        say "on Linux about 3 GB to download and 7 GB on disk; this takes 2 to 10 minutes"
    fi
    "$VENV/bin/python" "$SETUP_ROOT/scripts/check_requirements.py" --forget-partial || die 1 ".venv cannot be repaired; remove ${VENV#"$PWD/"} and start again"
    if command -v uv >/dev/null; then
        uv pip install --python "$VENV/bin/python" "${arguments[@]}" >&2 ||
            die 1 "the installation failed; uv's message is above"
    else
        if ! "$VENV/bin/python" -c 'from importlib.metadata import version; version("pip")' 2>/dev/null; then
            "$VENV/bin/python" -m ensurepip >/dev/null 2>&1 || die 1 ".venv has no pip; remove ${VENV#"$PWD/"} and start again"
        fi
        pip_install "${arguments[@]}"
    fi
    say "installed"
}

# Install into .venv; concurrent starts wait for the first.
install_locked() {
    if command -v flock >/dev/null; then
        exec 9>"$SETUP_ROOT/.venv.lock"
        if ! flock -n 9; then
            say "another start is installing into .venv; waiting for it"
            flock 9
        fi
    fi
    if is_installed; then return; fi
    if [[ -n "${SETUP_CPU:-}" && -z "${PIP_INDEX_URL:-}${PIP_EXTRA_INDEX_URL:-}" ]] && ! command -v uv >/dev/null; then
        die 2 "SETUP_CPU: pip needs the index of PyTorch's CPU packages (pytorch.org names it), expected it in PIP_EXTRA_INDEX_URL; set it, or install uv"
    fi
    if ! is_venv; then make_venv; fi
    local list
    rm -f "$VENV"/installed_*
    fill_venv
    for list in "${SOURCES[@]}"; do
        cp "$SETUP_ROOT/$list" "$VENV/installed_$list.tmp"
        mv "$VENV/installed_$list.tmp" "$VENV/installed_$list"
    done
}

check_given_python() {
    local problem code=0
    if [[ "$PYTHON" == */* && "$PYTHON" != /* ]]; then PYTHON="$PWD/$PYTHON"; fi
    command -v "$PYTHON" >/dev/null || die 2 "PYTHON is $PYTHON, which cannot be run; set it to a Python, or unset it"
    ADVICE="; see $PYTHON scripts/doctor.py"
    problem="$(satisfies_requirements "$PYTHON" 2>&1)" || code=$?
    if ((code != 0)); then
        die 2 "PYTHON is $PYTHON: ${problem##*$'\n'}; correct that, or unset PYTHON to create .venv"
    fi
}

# Say why the active environment is not taken.
note_active_environment() {
    local active="${VIRTUAL_ENV:-${CONDA_PREFIX:-}}" problem
    if [[ -n "$active" && -z "${SETUP_LOCK:-}" && "$active" != "$VENV" ]]; then
        problem="$(satisfies_requirements "$active/bin/python" 2>&1)" || true
        say "note: $active is active, but not used: ${problem##*$'\n'}; to use it, install ${LISTS[*]} there (pip install -r)"
    fi
}

setup_env() {
    local ADVICE="; see python3 scripts/doctor.py"
    if [[ -n "${PYTHON:-}" ]]; then
        check_given_python
        if [[ -n "${SETUP_LOCK:-}" ]]; then say "note: SETUP_LOCK has no effect, as PYTHON is set"; fi
    elif [[ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" && -z "${SETUP_LOCK:-}" ]] &&
        PYTHON="$(find_python satisfies_requirements ${VIRTUAL_ENV:+"$VIRTUAL_ENV/bin/python"} ${CONDA_PREFIX:+"$CONDA_PREFIX/bin/python"})"; then
        :
    elif is_installed; then
        PYTHON="$VENV/bin/python"
    elif [[ -n "${SETUP_LOCK:-}" ]] || ! PYTHON="$(find_python satisfies_requirements python3 python)"; then
        note_active_environment
        run_stoppable install_locked || exit $?
        PYTHON="$VENV/bin/python"
    fi
    export PYTHON
}

if [[ "${BASH_SOURCE[0]}" == "$0" ]] && (($#)); then
    sed -n '2,/^set /s/^# \{0,1\}//p' "$0"
    if [[ "$1" == --help || "$1" == -h ]]; then exit 0; fi
    die 2 "unknown argument $1; setup_env.sh takes none"
fi
setup_env
if [[ "${BASH_SOURCE[0]}" == "$0" ]]; then printf '%s\n' "$PYTHON"; fi
