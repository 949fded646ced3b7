#!/bin/sh
# Makes .venv ready for work, once: called by every target of the Makefile, safe to call at any time.
# A second call compares checksums and is done. An interrupted one leaves no .venv/.ready, so the next starts
# from nothing; two at once take turns. Exit: 0 ready, 1 an installation step failed, 2 no usable Python.
set -eu
cd "$(dirname "$0")"
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV CONDA_PREFIX # they would lead pip and uv to another environment

wanted() { # what .ready must say: scripts in .venv hold its absolute path, the rest is what was installed
    pwd && cksum requirements.lock pyproject.toml bootstrap.sh
}

ready() {
    [ -x .venv/bin/python ] && [ "$(cat .venv/.ready 2>/dev/null)" = "$(wanted)" ]
}

probe() { # prints the true path of a Python that can carry us; a pyenv shim may exist and fail
    "$1" -I -c '
import ctypes, ensurepip, sqlite3, ssl, sys, venv
print(sys.executable) if (3, 12) <= sys.version_info[:2] < (3, 14) else sys.exit(1)
' 2>/dev/null </dev/null
}

find_python() {
    for candidate in python3.13 python3.12 python3 python \
        "${PYENV_ROOT:-${HOME:-}/.pyenv}"/versions/*/bin/python3 "${HOME:-}"/.pyenv/versions/*/bin/python3; do
        probe "$candidate" && return
    done
    echo "chipmill needs Python 3.12 or 3.13 with ssl, sqlite3, ctypes, venv and ensurepip, and found none on" \
        "PATH or in pyenv: install one (Debian and Ubuntu: python3.12 and python3.12-venv; or: pyenv install" \
        "3.13) and run this again." >&2
    return 2
}

setting() { # one of pip's settings, in pip's order: environment, then command section, then global
    for section in :env:. install. global.; do
        value=$(printf '%s\n' "$pip_settings" | sed -n "s/^$section$1='\(.*\)'\$/\1/p" | sed 's/\\n/ /g')
        [ -z "$value" ] || { echo "$value" && return; }
    done
}

take_over_index() { # uv reads none of pip's settings; what the user gave to uv itself comes first
    pip_settings=$(.venv/bin/python -m pip config list)
    : "${UV_DEFAULT_INDEX:=$(setting index-url)}" "${UV_EXTRA_INDEX_URL:=$(setting extra-index-url)}"
    : "${UV_FIND_LINKS:=$(setting find-links | tr ' ' ,)}" "${SSL_CERT_FILE:=$(setting cert)}"
    : "${UV_INSECURE_HOST:=$(setting trusted-host)}"
    # pip merges its indexes; the hashes of the lock say which file is meant, wherever it lies
    : "${UV_INDEX_STRATEGY:=unsafe-best-match}"
    for name in UV_DEFAULT_INDEX UV_EXTRA_INDEX_URL UV_FIND_LINKS SSL_CERT_FILE UV_INSECURE_HOST UV_INDEX_STRATEGY; do
        eval "[ -z \"\$$name\" ] && unset $name || export $name"
    done
}

install() {
    rm -f .venv/.ready
    sed -n '/^uv==/,/[^\\]$/p' requirements.lock >.venv/uv.txt # its pin and hashes
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r .venv/uv.txt
    take_over_index
    .venv/bin/uv pip sync --quiet --python .venv/bin/python --require-hashes requirements.lock
    .venv/bin/uv pip install --quiet --python .venv/bin/python --no-build-isolation --no-deps --editable .
    .venv/bin/chipmill doctor
    wanted >.venv/.ready.new
    mv .venv/.ready.new .venv/.ready
}

if ready; then exit 0; fi

if [ "${1:-}" != --locked ]; then
    python=$(find_python)
    # The lock is the kernel's, so that it ends with its holder, even by kill -9; the installers inherit it.
    exec "$python" -I -c '
import fcntl, os, sys
lock = os.open(".bootstrap.lock", os.O_RDWR | os.O_CREAT, 0o644)
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("Another set-up works in this tree: waiting for it.", flush=True)
    fcntl.flock(lock, fcntl.LOCK_EX)
os.set_inheritable(lock, True)
os.execv("/bin/sh", ["sh", "bootstrap.sh", "--locked", sys.argv[1]])
' "$python"
fi

if [ "$(head -n 1 .venv/.ready 2>/dev/null)" = "$(pwd)" ] && probe .venv/bin/python >/dev/null; then
    echo "Set-up: the list of packages has changed; bringing .venv up to date."
else
    echo "Set-up: makes .venv with $2 ($(uname -sm))."
    echo "It will download up to 0.8 GB of packages (nothing that uv has in its cache) and unpack 2.7 GB here," \
        "half of it TensorFlow."
    rm -rf .venv
    "$2" -m venv .venv
fi
install
echo "Set-up: done."
