"""Who gets in at the page's door, and what strangers may cost."""
# ruff: noqa: E501, PT012

from __future__ import annotations

import itertools
import json
import logging
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from page_fixture import wait_for
from test_page_server import TOKEN, Hand, connect, message_of

from jmt_edge.live.page import clients, door
from jmt_edge.live.page.door import MAX_KNOWN, MAX_STRANGERS, PER_NETWORK, RUSH, SPEAK, Door, network_of
from jmt_edge.live.page.security import MAX_CLIENTS, MAX_NETWORKS, PerNetwork

PORTS = itertools.count(1000)


class Connection:
    """What the door uses of a socket."""

    def __init__(self) -> None:
        self.shut = False

    def fileno(self) -> int:
        return -1 if self.shut else 5

    def shutdown(self, how: int) -> None:
        self.shut = True


def enter(at: Door, host: str, number: int) -> list[Any]:
    made = [Connection() for _ in range(number)]
    for connection in made:
        at.came(connection, (host, next(PORTS)))  # type: ignore[arg-type]
    return made


def opened(port: int, source: str = "127.0.0.1", data: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), 20, source_address=(source, 0))
    connection.sendall(data)
    return connection


# --- places -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("192.0.2.7", "192.0.2.7"), ("::ffff:192.0.2.7", "192.0.2.7"), ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"), ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"), ("unix", "unix"),
    ],
)  # fmt: skip
def test_a_network_is_one_sender(host: str, network: str) -> None:
    assert network_of(host) == network


def test_a_network_has_few_places_and_loses_its_oldest() -> None:
    at = Door()
    nurse = enter(at, "192.0.2.1", 1)
    crowd = enter(at, "192.0.2.2", 3 * RUSH * PER_NETWORK)
    assert sum(not one.shut for one in crowd) == RUSH * PER_NETWORK and not crowd[-1].shut and crowd[0].shut
    at.sweep(time.monotonic() + SPEAK + 0.1)
    assert [one.shut for one in crowd].index(False) == len(crowd) - PER_NETWORK
    assert not nurse[0].shut


def test_many_networks_share_the_places_and_the_largest_pays() -> None:
    at = Door()
    nurse = enter(at, "192.0.2.1", 1)
    crowd = [one for n in range(40) for one in enter(at, f"2001:db8:0:{n:x}::1", 20)]
    assert len(at) <= RUSH * MAX_STRANGERS
    at.sweep(time.monotonic() + SPEAK + 0.1)
    assert MAX_STRANGERS / 2 < len(at) <= MAX_STRANGERS and not crowd[-1].shut and not nurse[0].shut


def test_those_who_asked_something_stay_longer() -> None:
    at = Door()
    made = [Connection() for _ in range(PER_NETWORK + 1)]
    for port, connection in enumerate(made):
        at.came(connection, ("192.0.2.1", port))  # type: ignore[arg-type]
    at.asked(("192.0.2.1", 0))
    at.sweep(time.monotonic() + SPEAK + 0.1)
    assert [one.shut for one in made].index(True) == 1
    at.sweep(time.monotonic() + door.ASK + 0.1)
    assert [one.shut for one in made].count(False) == 1 and not made[0].shut
    at.sweep(time.monotonic() + door.STAY + 0.1)
    assert made[0].shut


def test_clients_keep_their_places() -> None:
    at = Door()
    made = [Connection() for _ in range(MAX_KNOWN + 10)]
    for port, connection in enumerate(made):
        at.came(connection, ("192.0.2.1", port))  # type: ignore[arg-type]
        at.welcome(("192.0.2.1", port), streaming=port == 0)
    enter(at, "192.0.2.1", 500)
    at.sweep(time.monotonic() + 1000)
    assert not made[0].shut and sum(not one.shut for one in made) == MAX_KNOWN + 1 and not made[-1].shut


def test_counts_of_networks_are_bounded() -> None:
    counts = PerNetwork(1, 2)
    for n in range(3 * MAX_NETWORKS):
        counts.of((f"2001:db8:0:{n:x}::1", 1)).take()
    assert len(counts._buckets) == MAX_NETWORKS


# --- the real server --------------------------------------------------------------------------------------------------


def test_idle_sockets_and_half_requests_keep_nobody_out(hand: Callable[..., Hand]) -> None:
    page = hand(token=TOKEN)
    page.step()
    crowd = [opened(page.http.port, f"127.0.0.{1 + n % 3}", (b"", b"GET / HT")[n % 2]) for n in range(270)]
    assert page.http("GET", "/healthz", token=False)[0] == 200
    assert page.http("GET", "/api/v1/state")[0] == 200
    with connect(page) as client:
        client.send(json.dumps({"type": "token", "token": TOKEN}))
        message_of(client, "hello")
        wait_for(lambda: page.http.metric("page_strangers_closed_total") >= 270 - 3 * PER_NETWORK)
        page.step()
        message_of(client, "result")
    for one in crowd:
        one.close()


def test_a_half_request_has_its_time(hand: Callable[..., Hand], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "ASK", 0.5)
    page = hand(token=TOKEN)
    for data in (b"", b"GET / HTTP/1.1\r\nHost: x\r\n", b"POST /api/v1/markers HTTP/1.1\r\nContent-Length: 9"):
        with opened(page.http.port, data=data) as one:
            assert one.recv(100) == b""  # closed by the server


def test_sockets_that_never_log_in_take_no_place(hand: Callable[..., Hand]) -> None:
    page = hand(token=TOKEN)
    page.step()
    silent = [connect(page) for _ in range(MAX_CLIENTS + 2)]
    with connect(page) as client:
        client.send(json.dumps({"type": "token", "token": TOKEN}))
        message_of(client, "hello")
    for one in silent:
        one.close()


def test_places_of_clients_are_limited_after_the_login(hand: Callable[..., Hand]) -> None:
    exceptions = pytest.importorskip("websockets.exceptions")
    page = hand(token=TOKEN)
    page.step()
    many = [connect(page) for _ in range(MAX_CLIENTS)]
    for one in many:
        one.send(json.dumps({"type": "token", "token": TOKEN}))
        message_of(one, "hello")
    with connect(page) as extra, pytest.raises(exceptions.ConnectionClosed) as closed:
        extra.send(json.dumps({"type": "token", "token": TOKEN}))
        extra.recv(20)
    assert closed.value.rcvd.code == 1013
    for one in many:
        one.close()


@pytest.mark.parametrize(
    "secret",
    ['{"token":"\\ud800"}', '{"token":' * 100, "[" * 1000, '{"token":' + "9" * 900 + "}", '"\\udfff"', b"\xff\xfe"],
)
def test_odd_logins_are_wrong_tokens(
    hand: Callable[..., Hand], caplog: pytest.LogCaptureFixture, secret: str | bytes
) -> None:
    exceptions = pytest.importorskip("websockets.exceptions")
    page = hand(token=TOKEN)
    with connect(page) as client, pytest.raises(exceptions.ConnectionClosed) as closed:
        client.send(secret)
        client.recv(20)
    assert closed.value.rcvd.code == 1008 and page.http.metric("page_wrong_tokens_total") == 1
    assert caplog.records == [] and page.http.json("GET", "/api/v1/state")[1]["faults"] == {}


@pytest.mark.parametrize("token", ["\u00ff\u00fe-latin", "x" * 5000, "", " "])
def test_odd_bearers_are_refused(hand: Callable[..., Hand], token: str) -> None:
    page = hand(token=TOKEN)
    head = f"GET /api/v1/state HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n"
    with opened(page.http.port, data=head.encode("latin-1")) as one:
        assert one.recv(100).split()[1] in (b"400", b"401")


def test_wrong_tokens_close_the_door_of_their_sender_only(hand: Callable[..., Hand]) -> None:
    page = hand(token=TOKEN)

    def ask(source: str, token: str, forged: str = "") -> bytes:
        extra = f"X-Forwarded-For: {forged}\r\nForwarded: for={forged}\r\nX-Real-IP: {forged}\r\n" if forged else ""
        head = f"GET /api/v1/alarms HTTP/1.1\r\nHost: x\r\n{extra}Connection: close\r\nAuthorization: Bearer {token}\r\n\r\n"
        with opened(page.http.port, source, head.encode()) as one:
            return one.recv(100).split()[1]

    for _ in range(300):
        ask("127.0.0.2", "wrong")
    # a forged address is neither another sender nor somebody else's loss
    answers = {ask("127.0.0.2", "wrong", forged=f"127.0.0.{n}") for n in range(5)}
    assert answers <= {b"429", b"401"} and b"429" in answers
    assert ask("127.0.0.1", TOKEN) == b"200" and ask("127.0.0.3", TOKEN, forged="127.0.0.2") == b"200"
    wait_for(lambda: ask("127.0.0.2", TOKEN) == b"200")


def test_health_is_not_limited_with_the_readings(hand: Callable[..., Hand]) -> None:
    page = hand()
    page.step()
    with socket.create_connection(("127.0.0.1", page.http.port), 20) as one:
        one.sendall(b"GET /api/v1/alarms HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 150)
        said = b""
        while b" 429 " not in said:
            data = one.recv(65536)
            assert data, "the readings have no limit"
            said += data
        assert page.http("GET", "/healthz")[0] in (200, 503)  # 503: the run is this test, which does nothing meanwhile


@pytest.mark.parametrize(
    "request_", [
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"Cookie: a=b\r\n" * 40_000 + b"\r\n", b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 70000, b"\x16\x03\x01" + b"\0" * 500, b"\0" * 20000, b"GET / HTTP/1.1\r\n\r\n",
    ],
)  # fmt: skip
def test_heads_of_requests_are_bounded(
    hand: Callable[..., Hand], caplog: pytest.LogCaptureFixture, request_: bytes
) -> None:
    page = hand(token=TOKEN)
    with opened(page.http.port) as one, suppress(ConnectionError):
        one.sendall(request_)
        assert one.recv(100).split()[1] in (b"400", b"421")
    assert page.http("GET", "/api/v1/alarms")[0] == 200 and caplog.records == []


def test_pipelined_requests_wait_for_their_answers_to_be_read(hand: Callable[..., Hand]) -> None:
    page = hand()
    page.step()
    before = _memory_mb()
    with opened(page.http.port) as one:
        one.settimeout(0.5)
        with suppress(TimeoutError, ConnectionError):
            for _ in range(2000):
                one.sendall(b"GET /static/uPlot.iife.min.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 50)
        assert page.http("GET", "/healthz")[0] in (200, 503)
    assert _memory_mb() < before + 30


def test_pings_whose_answers_are_not_read_end_the_connection(hand: Callable[..., Hand]) -> None:
    page = hand(token=TOKEN)
    before = _memory_mb()
    head = (
        f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{page.http.port}\r\nOrigin: http://127.0.0.1:{page.http.port}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    ping = bytes([0x89, 0x80 | 125]) + bytes(4) + b"p" * 125
    with opened(page.http.port, data=head.encode()) as one:
        assert b"101" in one.recv(12)
        with pytest.raises((ConnectionError, TimeoutError)):
            for _ in range(1000):
                one.sendall(ping * 1000)
    assert _memory_mb() < before + 60
    assert page.http("GET", "/healthz")[0] in (200, 503)


def test_a_client_that_does_not_read_is_cut_off(hand: Callable[..., Hand], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kernel buffers are full, so that the server waits in `send` and its own timeout is never reached."""
    monkeypatch.setattr(clients, "DEAD", 1.5)
    page = hand()
    page.step()
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.connect(("127.0.0.1", page.http.port))
        url = f"127.0.0.1:{page.http.port}"
        one.sendall(
            f"GET /ws HTTP/1.1\r\nHost: {url}\r\nOrigin: http://{url}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        wait_for(lambda: page.http.metric("page_clients") == 1)

        def gone() -> bool:
            page.step(side=400)
            return page.http.metric("page_clients") == 0

        wait_for(gone)


def test_a_lone_surrogate_in_a_request_is_refused(hand: Callable[..., Hand]) -> None:
    page = hand()
    headers = {"Content-Type": "application/json"}
    for path, body in (
        ("markers", '{"\\ud800": 1}'), ("markers", '{"text": "\\ud800"}'), ("alarms/acknowledge", '{"id": "\\udc00"}'),
    ):  # fmt: skip
        status, answer = page.http.json("POST", f"/api/v1/{path}", body, headers=headers)
        assert status == 400 and list(answer) == ["error"]
    assert page.controls.take_marks() == [] and not page.audit.read_text()


def test_strangers_write_no_log(hand: Callable[..., Hand], caplog: pytest.LogCaptureFixture) -> None:
    page = hand(token=TOKEN)
    rubbish = [os.urandom(200) for _ in range(40)] + [b"GET / HTTP/9\r\n\r\n", b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"] * 20  # fmt: skip
    for data in rubbish:
        with opened(page.http.port) as one, suppress(ConnectionError):
            one.sendall(data)
            one.shutdown(socket.SHUT_WR)
            one.recv(100)
    assert page.http("GET", "/healthz")[0] in (200, 503)
    assert len([r for r in caplog.records if r.levelno >= logging.WARNING]) <= 10
    assert all(r.exc_info is None for r in caplog.records)


def _memory_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6
