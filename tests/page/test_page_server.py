"""The page's server without a browser: interface, security, limits, audit log, memory and slow clients."""
# ruff: noqa: E501, PT012

from __future__ import annotations

import hashlib
import json
import re
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from page_fixture import Http, empty_bundle, wait_for

from jmt_edge.capture.base import State, Status
from jmt_edge.errors import ConfigError
from jmt_edge.live import Controls, Mark, Quality, Result, RunInfo
from jmt_edge.live.page import PageObserver, start_page
from jmt_edge.live.page.api import OPERATIONS
from jmt_edge.live.page.audit import AuditLog, verify
from jmt_edge.live.page.feed import INBOX
from jmt_edge.live.page.frames import blurred
from jmt_edge.live.page.security import MAX_CLIENTS, Guard, is_loopback, parse_address
from jmt_edge.live.page.server import TOKEN_VARIABLE
from jmt_edge.live.page.traces import Trace, VoiceLevel, pack
from jmt_edge.media.chunk import Chunk
from jmt_edge.preprocessing.face import Face
from jmt_edge.tasks import get_task

TOKEN = "sixteen-characters-and-more"


class Hand:
    """A page whose run is this test."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.controls = Controls()
        task = get_task("trimodal", "demo")
        self.bundle = empty_bundle(task, folder / "hand.jmt")
        address = options.pop("address", "127.0.0.1:0")
        self.page: PageObserver = start_page(address, self.controls, recordings=folder / "runs", **options)
        self.audit = folder / "runs" / "page-audit.jsonl"
        sources = dict.fromkeys(task.names, "by hand")
        self.page.on_start(RunInfo(self.bundle, "hand", {"fusion": "fp32"}, 0.5, True, 0.0, sources, demo_alarms=True))
        self.t = 0.0
        self.http = Http(self.page)

    def step(self, pain: float | None = 0.3, *, side: int = 64) -> None:
        """Half a second of everything."""
        times = self.t + np.arange(32) / 64
        self.page.on_chunk("eda", Chunk(times, np.full(32, 2.5, np.float32), 64))
        sound = self.t + np.arange(2205) / 4410
        self.page.on_chunk("voice", Chunk(sound, np.full(2205, 0.1, np.float32), 4410))
        image = np.full((side, side, 3), 90, np.uint8)
        self.page.on_chunk("face", Chunk(np.array([self.t + 0.4]), [image], 25))
        self.t += 0.5
        self.page.on_status(
            {name: Status(State.STREAMING, unit="µS" if name == "eda" else "") for name in ("face", "voice", "eda")}
        )
        outputs = None if pain is None else {"pain": pain, "valence": 0.1, "arousal": -0.2}
        quality = {
            name: Quality(pain is not None, "" if pain is not None else "test", 0.9)
            for name in ("face", "voice", "eda")
        }
        share = None if pain is None else 1 / 3
        latency = {"preprocess": 1.0, "backbones": 2.0, "fusion": 1.0, "total": 12.5}
        self.page.on_result(
            Result(round(self.t / 0.5), self.t, "trimodal", outputs, "" if outputs else "no usable modality", quality,
                   dict.fromkeys(quality, share), latency, 0, self.bundle.id)
        )  # fmt: skip


def connect(hand: Hand, **options: Any) -> Any:
    websockets = pytest.importorskip("websockets.sync.client")
    url = f"ws://{hand.http.host}:{hand.http.port}"
    options.setdefault("origin", url.replace("ws", "http", 1))
    return websockets.connect(url + "/ws", **options)


def message_of(socket_: Any, kind: str, timeout: float = 30) -> dict[str, Any]:
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        message = socket_.recv(timeout)
        if isinstance(message, str) and (parsed := json.loads(message))["type"] == kind:
            return dict(parsed)
    raise AssertionError(f"no {kind}")


# --- interface ------------------------------------------------------------------------------------------------------


def test_result_metrics_and_health(hand: Callable[..., Hand]) -> None:
    page = hand()
    assert page.http.json("GET", "/api/v1/result")[0] == 503
    for _ in range(4):
        page.step(0.42)
    status, result = wait_for(lambda: (r := page.http.json("GET", "/api/v1/result"))[0] == 200 and r)
    assert status == 200 and result["outputs"]["pain"] == 0.42 and result["latency_p50_p95_ms"] == [12.5, 12.5]
    text = page.http("GET", "/metrics")[2].decode()
    for line in text.splitlines():
        assert line.startswith("#") or re.fullmatch(r'jmt_edge_[a-z_]+(\{[a-z]+="[a-z0-9.]+"\})? -?[0-9.e+-]+', line), (
            line
        )
    assert 'jmt_edge_output{name="pain"} 0.42\n' in text and "jmt_edge_results_total 4\n" in text
    assert page.http.json("GET", "/healthz")[1]["status"] == "ok"
    state = page.http.json("GET", "/api/v1/state")[1]
    assert state["eda"]["value"] == 2.5 and state["voice"]["level"] == -20.0


def test_no_number_stands_for_missing_data(hand: Callable[..., Hand]) -> None:
    page = hand()
    page.step(0.9)
    page.step(None)
    wait_for(lambda: page.http.metric("results_total") == 2)
    assert page.http.json("GET", "/api/v1/result")[1]["outputs"] is None
    assert "jmt_edge_output" not in page.http("GET", "/metrics")[2].decode()
    page.page.on_chunk("eda", Chunk(np.array([page.t]), np.array([np.nan], np.float32), 64))
    eda = wait_for(lambda: (s := page.http.json("GET", "/api/v1/state")[1]["eda"])["value"] is None and s)
    assert eda["reason"]


def test_openapi_describes_every_operation(hand: Callable[..., Hand]) -> None:
    page = hand()
    document = page.http.json("GET", "/api/v1/openapi.json")[1]
    assert document["openapi"].startswith("3.1")
    described = {(method.upper(), path) for path, ops in document["paths"].items() for method in ops}
    assert described == {(o.method, o.path) for o in OPERATIONS}
    names = [op["operationId"] for ops in document["paths"].values() for op in ops.values()]
    assert len(names) == len(set(names))
    for method, path in described:
        if method == "GET" and "{" not in path:
            assert page.http(method, path)[0] in (200, 503), path
        other = "POST" if method == "GET" else "PUT"
        if (other, path) not in described:
            assert page.http(other, path, {})[0] == 405


def test_marker_reaches_the_run_and_the_log(hand: Callable[..., Hand]) -> None:
    page = hand()
    status, answer = page.http.json("POST", "/api/v1/markers", {"text": " turned\x1b[2J\n ", "rating": 7})
    assert status == 202 and answer == {"text": "turned[2J", "rating": 7, "recorded": False}
    ((_, text, rating, _),) = page.controls.take_marks()
    assert (text, rating) == ("turned[2J", 7)
    (line,) = page.audit.read_text().splitlines()
    assert json.loads(line)["action"] == "marker" and json.loads(line)["rating"] == 7
    page.page.on_mark(Mark(1.5, "turned", 7))
    wait_for(
        lambda: (
            page.http.json("GET", "/api/v1/markers")[1]["markers"]
            == [{"t": 1.5, "text": "turned", "rating": 7, "corrects": None}]
        )
    )


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("markers", {}), ("markers", {"rating": 11}), ("markers", {"rating": -1}), ("markers", {"rating": True}),
        ("markers", {"rating": 3.5}), ("markers", {"rating": "3"}), ("markers", {"text": 5}), ("markers", []),
        ("markers", {"rating": 3, "age": 61}),
        ("markers", {"rating": 3, "age": -1}), ("markers/correct", {"rating": 3}), ("markers/correct", {"t": "1"}),
        ("markers/correct", {"t": 1, "rating": 11}), ("markers/correct", b'{"t": NaN}'), ("markers", {"text": "x" * 201}), ("markers", {"text": "x", "path": "/etc"}), ("recording", {}),
        ("recording", {"on": 1}), ("alarms/pause", {"seconds": 121}), ("alarms/settings", {"limit": 0.3, "hysteresis": 0.3}),
        ("alarms/settings", b'{"limit": NaN}'), ("alarms/settings", b'{"limit": Infinity}'), ("markers", b"{"),
        ("alarms/acknowledge", {"id": 4}), ("markers", b"[" * 5000), ("view", {"face": "naked"}),
    ],
)  # fmt: skip
def test_wrong_bodies_are_refused_in_one_sentence(tmp_path: Path, shared_hand: Hand, path: str, body: Any) -> None:
    headers = {"Content-Type": "application/json"}
    status, answer = shared_hand.http.json("POST", f"/api/v1/{path}", body, headers=headers)
    assert status in (400, 409) and list(answer) == ["error"] and "\n" not in answer["error"]
    assert shared_hand.controls.take_marks() == []
    assert not shared_hand.audit.read_text()


@pytest.fixture(scope="module")
def shared_hand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hand]:
    one = Hand(tmp_path_factory.mktemp("shared"))
    yield one
    one.page.close()


def test_alarm_settings_and_acknowledgement(hand: Callable[..., Hand]) -> None:
    page = hand()
    http = page.http
    wait_for(lambda: http.json("POST", "/api/v1/alarms/settings", {"limit": 0.5, "delay": 0})[0] == 200)
    page.step(0.8)

    def alarms() -> dict[str, str]:
        return {a["id"]: a["state"] for a in http.json("GET", "/api/v1/alarms")[1]["alarms"]}

    wait_for(lambda: alarms().get("pain") == "active")
    assert http.json("POST", "/api/v1/alarms/acknowledge", {"id": "nothing"})[0] == 404
    http.json("POST", "/api/v1/alarms/acknowledge", {"id": "pain"})
    assert alarms()["pain"] == "acknowledged"
    actions = http.json("GET", "/api/v1/audit")[1]["actions"]
    assert actions[0]["before"]["limit"] == 0.7 and actions[0]["after"]["limit"] == 0.5
    assert actions[-1]["action"] == "acknowledge" and list(verify(page.audit)) == []


def test_no_value_between_two_looks_at_the_clock_is_missed(hand: Callable[..., Hand]) -> None:
    page = hand()
    wait_for(lambda: page.http.json("POST", "/api/v1/alarms/settings", {"limit": 0.5, "delay": 0})[0] == 200)
    for pain in (0.2, 0.62, 0.97, 0.61, 0.1):  # faster than the alarms are looked at
        page.step(pain)

    def alarm() -> dict[str, Any]:
        return next((a for a in page.http.json("GET", "/api/v1/alarms")[1]["alarms"] if a["id"] == "pain"), {})

    shown = wait_for(lambda: (a := alarm()).get("state") == "latched" and a)
    assert shown["peak"] == 0.97 and shown["text"] == "Pain probability was ≥ 50%"


def test_text_of_an_alarm_stays_the_same_while_it_lasts(hand: Callable[..., Hand]) -> None:
    page = hand()
    page.step()
    texts = set()
    for _ in range(8):
        time.sleep(0.3)
        page.page.on_status({})  # the loop lives, but no sensor gives samples
        texts |= {(a["id"], a["text"]) for a in page.http.json("GET", "/api/v1/alarms")[1]["alarms"]}
    assert ("sensor-eda", "EDA sensor silent") in texts and len(texts) == len({id for id, _ in texts})


def test_recording_needs_a_recorder(hand: Callable[..., Hand]) -> None:
    status, answer = hand().http.json("POST", "/api/v1/recording", {"on": True})
    assert status == 409 and "--record" in answer["error"]


# --- security -------------------------------------------------------------------------------------------------------


def test_every_answer_has_the_security_headers(hand: Callable[..., Hand]) -> None:
    page = hand()
    for path in ("/", "/static/app.js", "/healthz", "/api/v1/state", "/nothing"):
        headers = page.http("GET", path)[1]
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "script-src 'self';" in policy
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    "path",
    [
        "/static/../server.py", "/static/%2e%2e/server.py", "/static//etc/passwd", "/static/app.py", "/../pyproject.toml",
        "/api/v1/recordings/..", "/api/v1/recordings/%2e%2e", "/api/v1/recordings/..%2f..%2fetc", "/api/v1/recordings/.",
        "/api/v1/recordings/%2e%2e/export", "/api/v1/recordings/a%00b/export", "/api/v1/recordings/page-audit.jsonl",
    ],
)  # fmt: skip
def test_no_path_reaches_the_file_system(shared_hand: Hand, path: str) -> None:
    status, _, body = shared_hand.http("GET", path)
    assert status == 404 and b"root:" not in body


def test_foreign_host_names_and_origins_are_refused(hand: Callable[..., Hand]) -> None:
    page = hand()
    port = page.http.port
    assert page.http("GET", "/", headers={"Host": "evil.example"})[0] == 421
    assert page.http("GET", "/api/v1/state", headers={"Host": f"evil.example:{port}"})[0] == 421
    for host in (f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}"):
        assert page.http("GET", "/api/v1/state", headers={"Host": host})[0] == 200
    for origin in ("http://evil.example", "null", f"http://127.0.0.1:{port + 1}"):
        assert page.http("POST", "/api/v1/markers", {"rating": 1}, headers={"Origin": origin})[0] == 403
    assert page.http("POST", "/api/v1/markers", {"rating": 1}, headers={"Sec-Fetch-Site": "cross-site"})[0] == 403
    plain = {"Content-Type": "text/plain"}  # what a form can send
    assert page.http("POST", "/api/v1/markers", '{"rating": 1}', headers=plain)[0] == 415
    assert page.controls.take_marks() == []


@pytest.mark.parametrize("origin", [None, "http://evil.example", "null"])
def test_websocket_checks_the_origin(hand: Callable[..., Hand], origin: str | None) -> None:
    exceptions = pytest.importorskip("websockets.exceptions")
    with pytest.raises(exceptions.InvalidStatus) as refused, connect(hand(), origin=origin):
        pass
    assert refused.value.response.status_code == 403


def test_token_is_demanded(hand: Callable[..., Hand]) -> None:
    exceptions = pytest.importorskip("websockets.exceptions")
    page = hand(token=TOKEN)
    page.step()
    http = page.http
    assert http("GET", "/", token=False)[0] == 200 and http("GET", "/healthz", token=False)[0] == 200
    for method, path in ((o.method, o.path) for o in OPERATIONS if not o.open):
        status, headers, _ = http(method, path.replace("{id}", "x"), {} if method == "POST" else None, token=False)
        assert status == 401 and headers["www-authenticate"] == "Bearer"
    assert http("GET", "/api/v1/state")[0] == 200
    assert http("GET", "/api/v1/state", headers={"Host": "jetson.local:1"})[0] == 200
    with connect(page) as good:
        good.send(json.dumps({"type": "token", "token": TOKEN}))
        assert message_of(good, "hello")["run"]["bundle"] == page.bundle.id
    for wrong in ('{"token": "wrong"}', "[]", "{", '{"token": 5}'):
        with connect(page) as bad, pytest.raises(exceptions.ConnectionClosed) as closed:
            bad.send(wrong)
            bad.recv(20)
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1008


def test_guessing_the_token_is_stopped() -> None:
    guard, thief, nurse = Guard(TOKEN), ("192.0.2.1", 1), ("192.0.2.2", 1)
    assert guard.token_allowed(TOKEN, thief)
    tried = sum(not guard.token_allowed(f"guess {i}", thief) and not guard.closed(thief) for i in range(1000))
    assert tried < 500 and guard.closed(thief) and not guard.token_allowed(TOKEN, thief)
    assert guard.token_allowed(TOKEN, nurse)
    wait_for(lambda: guard.token_allowed(TOKEN, thief))


def test_other_addresses_get_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    page = start_page("0.0.0.0:0", Controls(), recordings=tmp_path)
    try:
        assert page.token is not None and len(page.token) >= 32
        assert f"#token={page.token}" in page.lines[0] and "not encrypted" in page.lines[1]
    finally:
        page.close()
    other = start_page("127.0.0.1:0", Controls(), recordings=tmp_path)
    other.close()
    assert other.token is None and len(other.lines) == 1


@pytest.mark.parametrize(
    ("address", "expected"),
    [("127.0.0.1:80", ("127.0.0.1", 80)), (":9000", ("127.0.0.1", 9000)), ("[::1]:81", ("::1", 81)), ("jetson", ("jetson", 8765)),
     ("[::1]", ("::1", 8765))],
)  # fmt: skip
def test_addresses(address: str, expected: tuple[str, int]) -> None:
    assert parse_address(address) == expected


def test_loopback() -> None:
    assert [is_loopback(h) for h in ("127.0.0.1", "127.1.2.3", "::1", "localhost")] == [True] * 4
    assert [is_loopback(h) for h in ("0.0.0.0", "10.0.0.1", "localhost.evil.example", "127.0.0.1.evil.example")] == [
        False
    ] * 4


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"address": "a b:1"}, "not an address"), ({"address": "127.0.0.1:70000"}, "not an address"),
        ({"address": "203.0.113.9:1"}, "cannot listen"), ({"token": "short"}, "fewer than 16"), ({"face": "x"}, "cannot be shown"),
        ({"certfile": Path("a.pem")}, "both a certificate"),
        ({"certfile": Path("a.pem"), "keyfile": Path("b.pem")}, "cannot be used"),
    ],
)  # fmt: skip
def test_wrong_options_are_one_sentence(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    address = options.pop("address", "127.0.0.1:0")
    with pytest.raises(ConfigError, match=says) as error:
        start_page(address, Controls(), recordings=tmp_path, **options)
    assert "\n" not in str(error.value)


def test_limits(hand: Callable[..., Hand]) -> None:
    exceptions = pytest.importorskip("websockets.exceptions")
    page = hand()
    page.step()
    assert page.http("POST", "/api/v1/markers", {"text": "x" * 9000})[0] == 413
    for wrong in ("x" * 5000, '{"type": "shell"}', "5", '{"type": "view", "face": "/etc"}'):
        with connect(page) as socket_, pytest.raises(exceptions.ConnectionClosed):
            socket_.send(wrong)
            while True:
                socket_.recv(20)
    many = [connect(page) for _ in range(MAX_CLIENTS)]
    for one in many:
        message_of(one, "hello")
    with pytest.raises(exceptions.InvalidStatus):
        connect(page)
    for one in many:
        one.close()
    wait_for(lambda: page.http.metric("page_clients") == 0)  # nothing is kept of a client that left
    codes = [page.http("POST", "/api/v1/markers", {"rating": 1})[0] for _ in range(60)]
    assert 429 in codes and 202 in codes


# --- audit log ------------------------------------------------------------------------------------------------------


def test_audit_log_shows_what_was_changed(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "audit.jsonl"
    for run in range(2):  # a second run goes on where the first ended
        log = AuditLog(path)
        for i in range(3):
            log.add("marker", "127.0.0.1", 1.5, text=f"{run} {i} ä")
        log.close()
    assert list(verify(path)) == [] and path.stat().st_mode & 0o077 == 0
    lines = path.read_text().splitlines()
    for name, changed in (
        ("altered", [lines[0].replace("marker", "nothing"), *lines[1:]]),
        ("taken out", lines[:2] + lines[3:]),
    ):
        path.write_text("\n".join(changed) + "\n")
        assert list(verify(path)), name


def test_audit_log_survives_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path)
    log.add("a", "c", 0.0)
    log.close()
    with path.open("a") as file:
        file.write('{"time": "2026')
    log = AuditLog(path)
    log.add("b", "c", 1.0)
    log.close()
    lines = path.read_text().splitlines()
    assert json.loads(lines[2])["action"] == "b"
    assert json.loads(lines[2])["previous"] == hashlib.sha256(lines[1].encode()).hexdigest()


def test_unwritable_audit_log_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="audit log"):
        AuditLog(tmp_path / "file" / "audit.jsonl")


# --- streams --------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0.001, 0.3), min_size=1, max_size=200), st.integers(1, 50))
def test_trace_does_not_depend_on_chunks(steps: list[float], size: int) -> None:
    times, values = np.cumsum(steps), np.sin(np.arange(len(steps)))
    whole, parts = Trace(16, 10), Trace(16, 10)
    whole.add(times, values)
    for at in range(0, len(times), size):
        parts.add(times[at : at + size], values[at : at + size])
    for a, b in zip(whole.since(0), parts.since(0)):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_trace_breaks_where_there_is_no_data() -> None:
    trace = Trace(10, 60)
    trace.add(np.array([0.05, 0.15, 5.05, 5.15, 5.25]), np.array([1.0, np.nan, 2.0, 2.0, 2.0]))
    t, v, count = trace.since(0)
    assert np.isnan(v[1]) and np.isnan(v[2]) and 0.15 < t[2] < 5  # no sample; gap
    assert v[[0, 3, 4]].tolist() == [1, 2, 2] and trace.since(count)[0].size == 0


def test_trace_is_bounded_and_forgets_the_oldest() -> None:
    trace = Trace(10, 5)
    trace.add(np.arange(100_000) / 10, np.arange(100_000.0))
    t, v, _ = trace.since(0)
    assert len(t) == 51 and v[-1] == 99_998 and (np.diff(t) > 0).all()


def test_voice_level_is_the_root_mean_square() -> None:
    level = VoiceLevel()
    times = np.arange(44_100) / 44_100
    level.add(times, (0.5 * np.sin(2 * np.pi * 440 * times)).astype(np.float32))
    assert level.trace.since(0)[1].mean() == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.1)


def test_packed_traces_are_what_the_page_reads() -> None:
    data = pack(7, {"eda": (np.array([1e5, 1e5 + 0.0625]), np.array([2.5, np.nan], np.float32))})
    assert struct.unpack_from("<BBHI", data) == (2, 1, 0, 7)
    kind, n, base = struct.unpack_from("<IId", data, 8)
    assert (kind, n, base) == (0, 2, 1e5) and len(data) % 4 == 0
    values = np.frombuffer(data, "<f4", 4, 24)
    assert values[:3].tolist() == [0, 0.0625, 2.5] and np.isnan(values[3])


def test_blur_leaves_nothing_to_recognise() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (240, 320, 3)).astype(np.uint8)
    out = blurred(image, (0.25, 0.25, 0.75, 0.75))
    inside = out[60:180, 80:240].astype(float)
    assert np.abs(np.diff(inside, axis=1)).mean() < 0.05 * np.abs(np.diff(image.astype(float), axis=1)).mean()
    assert (out[:5, :5] == image[:5, :5]).all()
    assert not (blurred(image, None)[:5, :5] == image[:5, :5]).all()  # no face known: everything


def test_blurred_picture_never_leaves_sharp(hand: Callable[..., Hand]) -> None:
    import cv2

    page = hand(face="blur")
    page.page.on_face(0.4, Face((16, 16, 48, 48), 0.9, np.zeros((5, 2), np.float32)))
    page.step()
    with connect(page) as client:
        assert message_of(client, "hello")["face"] == "blur"
        while not isinstance(message := client.recv(20), bytes) or message[0] != 1:
            pass
    kind, flag, _, _, t, x0, y0, x1, y1, score, _ = struct.unpack_from("<BBHId4ffI", message)
    assert (kind, flag) == (1, 1) and t == pytest.approx(0.4)
    assert (x0, y0, x1, y1) == (0.25, 0.25, 0.75, 0.75) and score == pytest.approx(0.9)
    image = cv2.imdecode(np.frombuffer(message, np.uint8, offset=40), cv2.IMREAD_COLOR)
    assert image.shape == (64, 64, 3)


def test_slow_client_gets_less_and_stops_nobody(hand: Callable[..., Hand]) -> None:
    page = hand()
    page.step(side=400)
    quick, slow = connect(page), connect(page)
    message_of(quick, "hello")
    message_of(slow, "hello")
    counts = {"quick": 0, "slow": 0}
    took = []
    end = time.monotonic() + 8
    while time.monotonic() < end:
        began = time.perf_counter()
        page.step(side=400)
        took.append(time.perf_counter() - began)
        for name, client in (("quick", quick), ("slow", slow)):
            try:
                while True:
                    message = client.recv(0.02)
                    if isinstance(message, bytes):
                        counts[name] += 1
                        if name == "quick":
                            client.send(json.dumps({"type": "ack", "n": struct.unpack_from("<I", message, 4)[0]}))
            except TimeoutError:
                pass
    assert counts["quick"] > 2 * counts["slow"] > 0
    assert np.median(took) < 0.01  # the loop only leaves references
    quick.close()
    slow.close()


def test_feed_is_bounded_when_nobody_takes(tmp_path: Path) -> None:
    page = PageObserver("", [], None)
    for i in range(3 * INBOX):
        page.on_mark(Mark(float(i)))
        page.on_chunk("face", Chunk(np.array([float(i)]), [np.zeros((2, 2, 3), np.uint8)], 25))
    assert len(page.take()) == INBOX and page.frame is not None and page.frame[0] == 3 * INBOX - 1


def test_client_that_vanishes_is_forgotten(hand: Callable[..., Hand]) -> None:
    page = hand()
    page.step()
    client = connect(page)
    message_of(client, "hello")
    assert page.http.metric("page_clients") == 1
    client.socket.shutdown(socket.SHUT_RDWR)
    wait_for(lambda: page.http.metric("page_clients") == 0)


def test_tls(tmp_path: Path) -> None:
    import shutil
    import ssl
    import subprocess
    import urllib.request

    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
        check=True, capture_output=True,
    )  # fmt: skip
    page = start_page("127.0.0.1:0", Controls(), recordings=tmp_path, certfile=cert, keyfile=key)
    try:
        assert page.url.startswith("https://")
        trusted = ssl.create_default_context(cafile=str(cert))
        url = page.url.replace("127.0.0.1", "localhost") + "healthz"
        with urllib.request.urlopen(url, context=trusted, timeout=20) as answer:
            assert json.load(answer)["status"] in ("ok", "stale")
    finally:
        page.close()
