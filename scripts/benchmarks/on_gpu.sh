#!/usr/bin/env bash
# What a GPU makes of the analysis, in one command and without a network; about 6 minutes.
#
#   scripts/benchmarks/on_gpu.sh gpu.json           # on the machine with the GPU
#   scripts/benchmarks/on_gpu.sh trial.json small   # the same in a small size, on any machine: does it work?
#
# Wheels of packages that the machine lacks are taken from the folder $WHEELS, if it is set; $PYTHON is the interpreter.
set -euo pipefail

output=$(realpath "${1:?usage: on_gpu.sh OUTPUT.json [small]}")
size=${2:-full}
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python=${PYTHON:-python3}
if [ -n "${WHEELS:-}" ]; then
  # Into a folder and not an environment: one made from an environment would not see that one's packages.
  "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$work/site" "$WHEELS"/*.whl
fi
export PYTHONPATH=$PWD:$work/site
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$work/compiled}

tests=(-n auto tests/events tests/inference tests/analyses)
if [ "$size" = small ]; then tests=(tests/events/test_flux.py); fi
# A test that fails is a result, too. Each worker would take most of a GPU's memory for itself.
XLA_PYTHON_CLIENT_PREALLOCATE=false "$python" -m pytest -q -p no:cacheprovider -p no:benchmark "${tests[@]}" |
  tee "$work/tests.txt" || true

# The same numbers on the CPU, in a process that sees no GPU.
JAX_PLATFORMS=cpu "$python" scripts/benchmarks/on_gpu.py --size "$size" --reference "$work/cpu.json"
"$python" scripts/benchmarks/on_gpu.py --size "$size" --cpu "$work/cpu.json" --tests "$work/tests.txt" --output "$output"
