#!/usr/bin/env bash
# Make .venv beside this file, install what the command needs, once, and run it. A relative path is the caller's.
#   ./run.sh                     train the GPT of configs/gpt.yaml
#   ./run.sh init NAME           make a project of one's own of this template, before anything else
#   ./run.sh VERB [options]      python -m src VERB [options]; ./run.sh --help lists the verbs
#   ./run.sh pytest [arguments]  the tests; all of them without arguments
#   ./run.sh check               the formatter, the linter, the type checker and the layers
#   ./run.sh tensorboard [arguments]
# PYTHON names the interpreter to make .venv with. EXTRAS adds optional dependencies of pyproject.toml: EXTRAS=rag,deepspeed
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
venv="$root/.venv"
stamp="$venv/.installed"

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

# standard output is the command's own
say() { echo "[$((SECONDS / 60)):$(printf %02d $((SECONDS % 60)))] $*" >&2; }

# not compiled ahead: the first import compiles the few modules in use
pip_install() { "$venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check "$@" >&2; }

install_locked() {
    say "installing the $(grep -cE '^[A-Za-z0-9]' "$1") packages of $(basename "$1"), each checked by its hash"
    pip_install --require-hashes --no-deps -r "$1"
}

install_extra() {
    case $1 in
        dev) install_locked "$root/requirements-dev.lock" ;;
        deepspeed)
            # it is compiled against the torch that is installed, with tools that must be there before it
            say "building DeepSpeed"
            pip_install -c "$root/constraints.txt" setuptools wheel ninja
            pip_install -c "$root/constraints.txt" --no-build-isolation deepspeed || {
                say "DeepSpeed could not be built here; all but ZeRO works without it"
                return
            }
            ;;
        *)
            say "installing the extra $1"
            (cd "$root" && pip_install -c constraints.txt ".[$1]")
            ;;
    esac
}

# install EXTRA...: nothing to do while it is there and the files that name versions are the same
install() {
    local python versions extra
    versions="$(cat "$root"/{pyproject.toml,constraints.txt,requirements.lock,requirements-dev.lock} | cksum)"
    if [[ "$(head -n 1 "$stamp" 2>/dev/null)" != "$versions" ]]; then
        python="$(find_python)"
        say "making $venv with $("$python" --version)"
        [[ -x $venv/bin/python ]] || "$python" -m venv "$venv"
        say "installing torch"
        # by itself: its build differs by machine, and resolving the others must not pull another one
        pip_install -c "$root/constraints.txt" torch
        install_locked "$root/requirements.lock"
        echo "$versions" >"$stamp"
    fi
    for extra in "$@"; do
        grep -qx -e "$extra" "$stamp" && continue
        # dev has these within it
        [[ $extra != @(bench|completion|evaluation|float8|hub|interoperability|mlflow|rag|serve|sweep|wandb) ]] || ! grep -qx dev "$stamp" || continue
        install_extra "$extra"
        echo "$extra" >>"$stamp"
    done
}

command="${1:-}"
modules="${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONUNBUFFERED=1 PYTHONPATH="$root$modules"
if [[ $command != pytest ]]; then
    # modules in the folder that it is called from are found, but after the project's: it may have a `src` of its own
    export PYTHONSAFEPATH=1 PYTHONPATH="$root:$PWD$modules"
fi
if [[ $command == init ]]; then # before anything is installed
    python="$(find_python)"
    RUN_SH="$0" exec "$python" -m src "$@"
fi
case $command in
    pytest) needed="dev deepspeed" ;;
    check) needed=dev ;;
    completion) needed=completion ;; # extra: completion
    evaluate) needed=evaluation ;; # extra: evaluation
    rag) needed=rag ;; # extra: retrieval
    serve) needed=serve ;; # extra: serve
    sweep | report | track) needed=sweep ;; # extra: sweep
    *) needed= ;;
esac
extras="${EXTRAS:-}"
install ${extras//,/ } $needed

if [[ -n ${PYTHONDONTWRITEBYTECODE:-} ]]; then
    # as in many containers; each start would compile the packages anew, for ten seconds. Nothing lies beside the sources
    unset PYTHONDONTWRITEBYTECODE
    export PYTHONPYCACHEPREFIX="$venv/bytecode"
fi
# glibc gives large freed blocks back to the system, and a training step asks for the same ones again: keep them
export MALLOC_MMAP_THRESHOLD_="${MALLOC_MMAP_THRESHOLD_:-1073741824}"
export MALLOC_TRIM_THRESHOLD_="${MALLOC_TRIM_THRESHOLD_:-1073741824}"
export MALLOC_TOP_PAD_="${MALLOC_TOP_PAD_:-268435456}"
case $command in
    "") exec "$venv/bin/python" -m src fit --config "$root/configs/gpt.yaml" ;;
    pytest)
        shift
        # a process a core, each with one thread
        export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
        [[ $# -gt 0 ]] || set -- -q -n auto --dist loadfile "$root/tests"
        exec "$venv/bin/python" -m pytest -c "$root/pyproject.toml" --rootdir "$root" "$@"
        ;;
    check)
        cd "$root"
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
    *) RUN_SH="$0" exec "$venv/bin/python" -m src "$@" ;; # help names the program as it was called
esac
