#!/usr/bin/env bash
# Installs the lowest versions that pyproject.toml promises and runs the tests of models and trainers on them. torch is given:
# its oldest versions differ from machine to machine.
#   scripts/check_lowest_versions.sh [FOLDER]
# PYTHON is the interpreter's version, TORCH the requirement.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-.venv-lowest}
uv venv --quiet --clear --python "${PYTHON:-3.10}" "$folder"
echo "${TORCH:-torch==2.13.0}" >"$folder/torch.txt"
install() { uv pip install --quiet --python "$folder/bin/python" --override "$folder/torch.txt" "$@"; }
install --resolution lowest-direct -e '.[pixels]'
install pytest pytest-timeout hypothesis
uv pip list --python "$folder/bin/python"
"$folder/bin/python" -m pytest tests/models tests/training/test_trainers.py
