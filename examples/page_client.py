"""A client of the page without a browser: logs in with the token, then prints each result as a line of JSON.

    jmt-edge live --page 0.0.0.0:8765                     # prints the address, with the token behind #token=
    python examples/page_client.py 'http://HOST:8765/#token=...' --results 10

Needs the page extra. For your own certificate, set SSL_CERT_FILE to it.
"""

from __future__ import annotations

import argparse
import json
import sys
from urllib.error import HTTPError, URLError
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request, urlopen

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address", help="what `jmt-edge live --page` printed")
    parser.add_argument("--results", type=int, metavar="N", help="stop after N results")
    given = parser.parse_args()
    url = urlsplit(given.address)
    token = parse_qs(url.fragment).get("token", [""])[0]
    origin = f"{url.scheme}://{url.netloc}"

    # HTTP: the token goes into a header, never into the address; /api/v1/openapi.json describes every operation
    try:
        with urlopen(Request(f"{origin}/api/v1/run", headers={"Authorization": f"Bearer {token}"})) as answer:
            print(json.load(answer), file=sys.stderr)
    except HTTPError as refused:
        sys.exit(f"{refused.code}: {json.load(refused)['error']}")
    except URLError as error:
        sys.exit(f"no answer from {origin} ({error.reason}); start `jmt-edge live --page` first")

    # WebSocket: the page's own origin, and with a token the first message is the login
    with connect(origin.replace("http", "ws", 1) + "/ws", origin=origin) as socket:
        if token:
            socket.send(json.dumps({"token": token}))
        socket.send(json.dumps({"type": "view", "visible": False}))  # no pictures or signals, only text
        left = given.results
        try:
            while left is None or left > 0:
                data = socket.recv()
                if isinstance(data, bytes):  # sent before the view was known; a client that never answers is dropped
                    socket.send(json.dumps({"type": "ack", "n": int.from_bytes(data[4:8], "little")}))
                elif json.loads(data)["type"] == "result":
                    print(data, flush=True)
                    left = None if left is None else left - 1
        except ConnectionClosed:
            print("the run has ended", file=sys.stderr)


if __name__ == "__main__":
    main()
