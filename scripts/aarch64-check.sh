#!/usr/bin/env bash
# The run-time on aarch64, on an x86-64 machine: Debian's arm64 Python and our wheel's aarch64 dependencies under QEMU,
# compared with the same commands here. `aarch64-check.sh [--tasks pain,affect,trimodal] [--json FILE]`
#
# Needs qemu-aarch64-static (apt install qemu-user-static), apt with a Debian mirror, and uv. It changes nothing of the
# system: packages are downloaded with apt's lists of their own and unpacked with dpkg -x. About 10 minutes and 1 GB the
# first time, under .cache/aarch64.
#
# Probabilities are compared within 2 %, not bit by bit: NumPy, OpenCV and onnxruntime have other kernels for NEON than for
# AVX2, which round differently, and the face follower carries differences from frame to frame.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD place=${AARCH64_PLACE:-$PWD/.cache/aarch64} tasks=pain,affect,trimodal json=
while (($#)); do
  case "$1" in
    --tasks) tasks=$2; shift 2 ;;
    --json) json=$2; shift 2 ;;
    *) sed -n '2,12p' "$0" >&2; exit 2 ;;
  esac
done
qemu=$(command -v qemu-aarch64-static) || { echo 'qemu-aarch64-static is missing; run: sudo apt-get install qemu-user-static' >&2; exit 3; }
uv=$(command -v uv || echo "$root/.uv/bin/uv")
mkdir -p "$place"

# --- Debian's arm64 Python, by an apt of its own
suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-bookworm}")
sysroot=$place/root
if [ ! -x "$sysroot/usr/bin/python3" ]; then
  apt_place=$place/apt
  mkdir -p "$apt_place"/{state/lists/partial,cache/archives/partial,etc} "$sysroot"
  : > "$apt_place/state/status"
  echo "deb [arch=arm64] ${DEBIAN_MIRROR:-http://deb.debian.org/debian} $suite main" > "$apt_place/etc/sources.list"
  options=(-o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User=root
    -o "Dir::State=$apt_place/state" -o "Dir::State::status=$apt_place/state/status" -o "Dir::Cache=$apt_place/cache"
    -o "Dir::Etc::sourcelist=$apt_place/etc/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o Debug::NoLocking=1 -o APT::Install-Recommends=0 -o Acquire::Languages=none)
  apt-get "${options[@]}" update -qq
  apt-get "${options[@]}" install -y -qq --download-only -o Debug::pkgProblemResolver=0 \
    python3 python3-minimal libpython3-stdlib libstdc++6 libgomp1 libportaudio2 >/dev/null
  for package in "$apt_place"/cache/archives/*.deb; do dpkg -x "$package" "$sysroot"; done
  rm -rf "$apt_place/cache"
fi
version=$(basename "$(readlink -f "$sysroot/usr/bin/python3")" | sed 's/python//')

# --- our wheel and its aarch64 dependencies
packages=$place/packages
rm -rf "$packages"
# onnxruntime 1.32 crashes at import under Debian's QEMU 7.2 (the emulator, or how it finds the CPU's features; it runs on
# boards); 1.23.2 is the newest that is known to work
echo 'onnxruntime==1.23.2' > "$place/constraints.txt"
"$uv" pip install --quiet --target "$packages" --python-version "$version" --python-platform aarch64-unknown-linux-gnu \
  --only-binary :all: --no-binary jmt-edge --constraint "$place/constraints.txt" "$root"

# --- the same commands on both machines
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE
export OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1
arm() { PYTHONPATH=$packages PYTHONHOME=$sysroot/usr "$qemu" -cpu cortex-a76 -L "$sysroot" "$sysroot/usr/bin/python3" -m jmt_edge "$@"; }
here() { "$root/.venv/bin/python" -m jmt_edge "$@"; }
out=$place/out
rm -rf "$out" && mkdir -p "$out"
arm --version | tee "$out/version"
arm doctor --json > "$out/doctor.json" || [ $? -eq 1 ]  # 1: no sensor is connected
for task in ${tasks//,/ }; do
  case "$task" in pain) seconds=6 ;; *) seconds=2.5 ;; esac  # the first window takes 5.5 s, else 2 s
  run=(live --task "$task" --duration "$seconds" --hop 0.5 --speed max --output jsonl --threads 1)
  echo "== $task"
  began=$(date +%s)
  arm "${run[@]}" --record "$out/$task-arm" > "$out/$task-arm.jsonl" 2> "$out/$task-arm.log"
  echo "$task $(($(date +%s) - began))" >> "$out/seconds"
  here "${run[@]}" > "$out/$task-here.jsonl" 2> "$out/$task-here.log"
done
first=${tasks%%,*}
arm replay "$out/$first-arm" --as-recorded --output jsonl > "$out/replay.jsonl" 2> "$out/replay.log"
exec "$root/.venv/bin/python" scripts/aarch64_compare.py "$out" "$tasks" ${json:+--json "$json"}
