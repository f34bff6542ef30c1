#!/usr/bin/env bash
# Set up .venv once, then run. Without arguments: train the GPT of configs/gpt.yaml.
#   ./run.sh                                    ./run.sh fit --config configs/gpt.yaml --trainer.max_steps 50
#   ./run.sh pytest [arguments]                 ./run.sh tensorboard [arguments]
#   ./run.sh check       the linter, the layers and the type checker
# PYTHON names the interpreter to make .venv with; EXTRAS the optional dependencies (default: dev).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

venv=.venv
stamp="$venv/.installed"
extras="${EXTRAS:-dev}"

find_python() {
    for python in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
        if "$python" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$python"
            return
        fi
    done
    echo "error: Python 3.11 or newer with the venv module is needed: install it, or name it with PYTHON=..." >&2
    exit 2
}

install() {
    # what is installed follows from these files and the extras: nothing to do while they are the same
    local wanted
    wanted="$extras $(cat pyproject.toml constraints.txt | cksum)"
    if [[ -f $stamp && "$(cat "$stamp")" == "$wanted" ]]; then
        return
    fi
    local python
    python="$(find_python)"
    echo "installing into $venv with $($python --version) (once)"
    if [[ ! -x $venv/bin/python ]]; then
        "$python" -m venv "$venv"
    fi
    # torch first and by itself: resolving the others must not pull another build of it
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
    if [[ $extras == *deepspeed* ]]; then
        # it compiles against the torch that is installed, with tools that must be there before it
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt setuptools wheel ninja
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-build-isolation deepspeed
    fi
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt ".[$extras]"
    echo "$wanted" >"$stamp"
}

install
export PYTHONUNBUFFERED=1
# glibc gives large freed blocks back to the system, and a training step asks for the same ones again: keep them
export MALLOC_MMAP_THRESHOLD_="${MALLOC_MMAP_THRESHOLD_:-1073741824}"
export MALLOC_TRIM_THRESHOLD_="${MALLOC_TRIM_THRESHOLD_:-1073741824}"
export MALLOC_TOP_PAD_="${MALLOC_TOP_PAD_:-268435456}"
case "${1:-}" in
    "") exec "$venv/bin/python" -m src fit --config configs/gpt.yaml ;;
    pytest)
        shift
        # a process a core, each with one thread
        export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
        [[ $# -gt 0 ]] || set -- -q -n auto
        exec "$venv/bin/python" -m pytest "$@"
        ;;
    check)
        "$venv/bin/ruff" format --check .
        "$venv/bin/ruff" check .
        "$venv/bin/mypy"
        "$venv/bin/lint-imports"
        ;;
    tensorboard)
        shift
        [[ $# -gt 0 ]] || set -- --logdir logs
        exec "$venv/bin/tensorboard" --host 127.0.0.1 "$@"
        ;;
    *) exec "$venv/bin/python" -m src "$@" ;;
esac
