#!/usr/bin/env bash
# The environment of `make demo`: the run-time and what it depends on, nothing of development. `demo-environment.sh UV DIR`
set -euo pipefail
uv=$1 place=$2
jetson() {  # as jmt_edge.engine.device.is_jetson
  [ -f /etc/nv_tegra_release ] || grep -qs 'nvidia,tegra' /proc/device-tree/compatible ||
    grep -qisx tegra /sys/devices/soc0/family || uname -r | grep -qE '[-_]tegra|-l4t-r[0-9]'
}
if ! jetson; then
  UV_PROJECT_ENVIRONMENT=$place "$uv" sync --frozen --quiet --no-dev --no-editable
  exit
fi
# JetPack's own OpenCV and NumPy, and the versions that were tested beside them; the lock is for other machines
case "$(python3 -c 'import sys; print(*sys.version_info[:2], sep=".")')" in
  3.10) constraints=deploy/constraints/jetpack6.txt ;;
  3.12) constraints=deploy/constraints/jetpack7.txt ;;
  *) echo 'this is neither the Python of JetPack 6 nor that of JetPack 7; see docs/howto/deploy-on-jetpack.md' >&2; exit 1 ;;
esac
python3 -c 'import cv2' 2>/dev/null || { echo 'OpenCV is missing; run: sudo apt-get install python3-opencv' >&2; exit 1; }
"$uv" venv --quiet --allow-existing --system-site-packages --python "$(command -v python3)" "$place"
"$place/bin/python" -m ensurepip --upgrade >/dev/null 2>&1 || true
"$place/bin/python" -m pip install --quiet --constraint "$constraints" .  # pip, unlike uv, sees the system's packages
