#!/bin/sh
# Makes .venv with the exact packages of requirements.txt, or with --lock resolves pyproject.toml
# anew and writes requirements.txt. One line says what is missing.
set -eu
cd "$(dirname "$0")"
PYTHON="${PYTHON:-python3}"

fail() { echo "error: $1" >&2; exit 1; }

command -v "$PYTHON" >/dev/null 2>&1 || fail "no $PYTHON found: install Python 3.11 (or set PYTHON=/path/to/python3.11)"
version=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
case "$version" in
  3.11 | 3.12) ;;
  *) fail "$PYTHON is Python $version: install Python 3.11 and run 'make book PYTHON=python3.11'" ;;
esac
"$PYTHON" -c 'import venv, ensurepip' 2>/dev/null || fail "Python's venv module is missing: install it (on Debian and Ubuntu: apt install python3-venv)"
case "$(uname -s) $(uname -m)" in
  "Linux x86_64" | "Linux aarch64" | "Darwin arm64") ;;
  *) fail "there are no packages for $(uname -s) on $(uname -m): use Linux (x86_64, aarch64), macOS (arm64) or WSL" ;;
esac
# A set-up that was stopped leaves its mark, and half an environment, which pip may take for whole.
# One that was made here is made anew; one that somebody made is theirs to delete.
rm -rf .venv.stopped
case "$(cat .venv/.unfinished 2>/dev/null)" in
  made) mv .venv .venv.stopped && rm -rf .venv.stopped ;;
  found) fail "the set-up of .venv was stopped half way: delete the folder .venv, make it as before, and run again" ;;
esac
if [ ! -d .venv ]; then
  free=$(df -Pk . | awk 'NR == 2 { print int($4 / 1048576) }')
  [ "$free" -ge "${MIN_FREE_GB:-10}" ] || fail "only $free GB are free here: free at least ${MIN_FREE_GB:-10} GB"
fi

if [ "${1:-}" = --lock ]; then
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
  "$PYTHON" -m venv "$folder/venv"
  "$folder/venv/bin/python" -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' >"$folder/direct.txt"
  "$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
  "$folder/venv/bin/pip" install --quiet --disable-pip-version-check -r "$folder/direct.txt"
  {
    echo "# Exact versions of everything, made by \`make lock\` from pyproject.toml."
    # Without local version labels such as +cpu: which build of torch is the platform's choice.
    "$folder/venv/bin/pip" freeze --disable-pip-version-check | sed 's/+[a-z0-9.]*$//' | grep -v '^nvidia-\|^triton' | sort -f
  } >"$folder/requirements.txt"
  mv "$folder/requirements.txt" requirements.txt
  exit 0
fi

echo "setting up .venv (once; downloads packages)" >&2
if [ -x .venv/bin/python ]; then
  echo found >.venv/.unfinished
else
  mkdir -p .venv
  echo made >.venv/.unfinished
  "$PYTHON" -m venv .venv
fi
[ -x .venv/bin/pip ] || fail "there is no pip in .venv: delete that folder and run again"
# pip's warnings about package indexes that lack a package are noise; its errors are kept.
install() {
  .venv/bin/pip install --quiet --quiet --disable-pip-version-check "$@" || {
    # What pip itself gave up, as where there is no network, has changed nothing.
    ! grep -q found .venv/.unfinished || rm .venv/.unfinished
    exit 1
  }
}
install -r requirements.txt
install --no-deps --no-build-isolation --editable .
rm .venv/.unfinished
touch .venv/.ready
