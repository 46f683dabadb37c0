#!/usr/bin/env bash
# Half an hour on a borrowed H100 or H200, in steps of less than ten minutes, from a bare checkout, without network
# and without this package installed (torch >= 2.11 and triton >= 3.6 are).
#
#   scripts/gpu-day.sh STEP...        run steps; rows go to $OUT (default: gpu-day/), as each is measured
#   scripts/gpu-day.sh collect DIR    rows -> benchmarks/results/*.json and the tables of docs/explanation/kernels.md
#
# Steps: 1 arithmetic per mode   2 tests, compiled   3 M = 2, S = 16, phase by phase   4 every contender
#        5 ncu and live runs     6 compute-sanitizer 7 all sizes, INT8                 8 the barrier under stress
set -uo pipefail
cd "$(dirname "$0")/.."
(($#)) || { sed -n '2,10p' "$0" >&2; exit 2; }
export OUT="${OUT:-gpu-day}" PYTHONUNBUFFERED=1 OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
mkdir -p "$OUT"

# the package as it lies here, for child processes too; the benchmarks' modules import each other by name
export PYTHONPATH="$PWD:$PWD/benchmarks${PYTHONPATH:+:$PYTHONPATH}"

if [ "$1" = collect ]; then
    exec python3 benchmarks/gpu_day.py collect "$2"
fi
status=0
for step in "$@"; do
    echo "== step $step, $(date +%T)"
    case "$step" in
    1)  # each mode in a process of its own: one that hangs is killed and the next still runs
        for mode in phased staged persistent; do
            timeout -k 5 "${STEP1_SECONDS:-90}" python3 benchmarks/gpu_day.py arithmetic "$mode" || status=1
        done ;;
    2)  timeout -k 5 "${STEP2_SECONDS:-420}" python3 -m pytest -q -n "${JOBS:-8}" --timeout=150 -p no:cacheprovider \
            ${TESTS:-tests/kernels} 2>&1 | tee "$OUT/tests.log" | tail -40 || status=1 ;;
    3)  timeout -k 5 240 python3 benchmarks/gpu_day.py phases || status=1 ;;
    4)  timeout -k 5 "${STEP4_SECONDS:-560}" python3 benchmarks/gpu_day.py contenders || status=1 ;;
    5)  timeout -k 5 300 python3 benchmarks/gpu_day.py live || status=1 ;;
    6)  timeout -k 5 560 ./scripts/sanitize-kernels.sh 2>&1 | tee "$OUT/sanitizer.log" | tail -30 || status=1 ;;
    7)  timeout -k 5 560 python3 benchmarks/gpu_day.py sizes || status=1 ;;
    8)  timeout -k 5 240 python3 benchmarks/gpu_day.py stress || status=1 ;;
    *)  echo "no step '$step': choose 1 to 8, or collect DIR" >&2; status=2 ;;
    esac
done
exit "$status"
