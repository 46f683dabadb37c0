#!/usr/bin/env bash
# The few Debian/Ubuntu packages: PortAudio for a microphone; PulseAudio, Chromium, strace and Mosquitto for the tests that
# use them. As root they are installed; else the one line to run is printed, and what needs them says so itself.
set -euo pipefail
PATH="$PATH:/usr/sbin"
declare -A file=(
  [libportaudio2]='libportaudio.so.2'
  [pulseaudio]='bin:pulseaudio'
  [libasound2-plugins]='alsa:libasound_module_pcm_pulse.so'
  [chromium]='bin:chromium'
  [strace]='bin:strace'
  [mosquitto]='bin:mosquitto'
  [mosquitto-clients]='bin:mosquitto_sub'
)
missing=()
for package in "${!file[@]}"; do
  case "${file[$package]}" in
    bin:*) command -v "${file[$package]#bin:}" >/dev/null || missing+=("$package") ;;
    alsa:*) compgen -G "/usr/lib/*/alsa-lib/${file[$package]#alsa:}" >/dev/null || missing+=("$package") ;;
    *) ldconfig -p | grep -q "${file[$package]}" || missing+=("$package") ;;
  esac
done
[ "${#missing[@]}" -eq 0 ] && exit 0
if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
  apt-get update -qq
  for package in "${missing[@]}"; do
    # Ubuntu's chromium is a snap stub; the tests that need a browser skip with the reason where it fails
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" >/dev/null ||
      echo "could not install $package; what needs it is skipped" >&2
  done
else
  echo "for a microphone and for every test, run: sudo apt-get install -y ${missing[*]}" >&2
fi
