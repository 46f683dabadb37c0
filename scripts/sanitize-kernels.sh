#!/usr/bin/env bash
# NVIDIA's compute-sanitizer over the fusion kernels: memory, shared-memory races, barriers. (Reads of what no kernel
# wrote show in the tests themselves too: their buffers start as NaN.) cuda-bindings asks the driver for functions that it
# may lack: such refusals are not reported.
# TOOLS="memcheck synccheck" and CASES="512 and sanitized" choose.
# Needs a GPU, the CUDA toolkit (compute-sanitizer) and the development environment. A Jetson has it in
# /usr/local/cuda/bin. Slow: minutes a tool. Exits 1 at the first tool that finds something.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PATH:/usr/local/cuda/bin"
command -v compute-sanitizer >/dev/null || { echo "compute-sanitizer is not here: install the CUDA toolkit" >&2; exit 2; }
# each tensor in an allocation of its own, so that a read past its end is seen
export PYTORCH_NO_CUDA_MEMORY_CACHING=1
for tool in ${TOOLS:-memcheck synccheck initcheck racecheck}; do
    echo "== $tool"
    compute-sanitizer --tool "$tool" --error-exitcode 1 --target-processes all --report-api-errors no --kernel-name kns=fusion_kernel \
        python3 -m pytest -q --dist=no --timeout=0 tests/kernels/test_kernels_gpu.py -k "${CASES:-sanitized}"
done
