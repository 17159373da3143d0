#!/usr/bin/env bash
# Runs prove_gpu.py where the package is not installed: with the wheels in .whl/ of the repository, if there are any, and no network.
#   bash scripts/prove_gpu.sh --output out [the options of prove_gpu.py]
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
site=""
if compgen -G "$root/.whl/*.whl" > /dev/null; then
  site="$(mktemp -d)"
  python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$site" "$root"/.whl/*.whl
fi
export PYTHONPATH="$root/src${site:+:$site}${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
exec python3 "$root/scripts/prove_gpu.py" "$@"
