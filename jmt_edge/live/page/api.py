"""The page's HTTP interface: one table of operations, from which the routes and the OpenAPI document are generated."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field, replace
from typing import IO, Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from ... import __version__
from ...controls import SUBJECT, check_subject
from ...errors import UserError
from ...faults import FAULTS
from ...recording.alarm_events import LABELS
from ...tasks import LONGEST_REST, SHORTEST_REST
from ..alarms import MAX_PAUSE, AlarmSettings
from ..events import NOT_RECORDED
from ..judge import STALE
from ..ratings import MAX_AGE
from .audit import AuditLog
from .clients import Clients
from .door import Door
from .frames import MODES
from .history import LEVELS
from .metrics import prometheus
from .model import Model
from .recordings import Recordings, UnknownRecording
from .security import MAX_BODY, Bucket, Guard

PREFIX = "/api/v1"
MAX_TEXT = 200  # characters of a marker's note
MIN_TREND, MAX_TREND = 60.0, LEVELS[-1][1]  # s

Handler = Callable[["Api", Request, dict[str, Any]], Awaitable[Response]]
Schema = dict[str, Any]


@dataclass(frozen=True)
class Operation:
    """One path and method. body: property -> its JSON schema; `required` lists the mandatory ones."""

    method: str
    path: str
    summary: str
    handler: Handler
    body: dict[str, Schema] | None = None
    required: tuple[str, ...] = ()
    query: dict[str, Schema] = field(default_factory=dict)
    answer: str = "application/json"
    open: bool = False  # needs no token


class Refused(UserError):
    """A rejected request, with its HTTP status."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Api:
    """The state that the operations share."""

    def __init__(
        self,
        model: Model,
        clients: Clients,
        audit: AuditLog,
        recordings: Recordings,
        guard: Guard,
        door: Door,
        face: str,
    ) -> None:
        self.model, self.clients, self.audit, self.recordings = model, clients, audit, recordings
        self.guard, self.door, self.face = guard, door, face
        self._actions = Bucket(rate=5, burst=30)
        self._readings = Bucket(rate=30, burst=120)
        self._disk = asyncio.Semaphore(1)  # one recording is read at a time

    def endpoint(self, operation: Operation) -> Callable[[Request], Awaitable[Response]]:
        """The operation as a Starlette endpoint, behind the checks common to all."""

        async def answer(request: Request) -> Response:
            try:
                values = await self._admit(operation, request)
                return await operation.handler(self, request, values)
            except Refused as error:
                headers = {401: {"www-authenticate": "Bearer"}, 429: {"retry-after": "1"}}.get(error.status)
                return JSONResponse({"error": str(error)}, error.status, headers)
            except UnknownRecording as error:
                return JSONResponse({"error": str(error)}, 404)
            except UserError as error:
                return JSONResponse({"error": str(error)}, 400)
            except ClientDisconnect:  # it left before its request was whole
                raise
            except Exception as error:
                FAULTS.add(f"page {operation.path}", error)
                return JSONResponse({"error": "this request failed inside the program; its log says why"}, 500)

        return answer

    async def _admit(self, operation: Operation, request: Request) -> dict[str, Any]:
        headers = request.headers
        if not self.guard.host_allowed(headers):
            raise Refused(421, "this host name is not the page's; use the address printed at the start")
        if not self.guard.origin_allowed(headers, required=False):
            raise Refused(403, "pages of other sites may not use this interface")
        if operation.open:
            return {}
        peer = request.client
        if not self.guard.bearer_allowed(headers, peer):
            if self.guard.closed(peer):
                raise Refused(429, "too many wrong tokens; try again in a second")
            raise Refused(401, "the token is missing or wrong; send `Authorization: Bearer TOKEN`")
        self.door.welcome(peer)
        bucket = self._actions if operation.method == "POST" else self._readings
        if not bucket.take():
            raise Refused(429, "too many requests; slow down")
        if operation.body is None:
            return {}
        return check_body(await read_body(request), operation.body, operation.required)

    async def act(self, request: Request, action: str, **details: Any) -> None:
        """Log an action before it is carried out. Raises Refused where the log cannot be written."""
        try:
            await asyncio.to_thread(self.audit.add, action, _client(request), self.model.stream, **details)
        except OSError as error:
            raise Refused(503, f"the audit log cannot be written ({error.strerror}), so nothing was done") from None

    async def from_disk(self, work: Callable[..., Any], *args: Any, **options: Any) -> Any:
        async with self._disk:
            return await asyncio.to_thread(work, *args, **options)


def _client(request: Request) -> str:
    return request.client.host if request.client else "unknown"


async def read_body(request: Request) -> Any:
    """The JSON of a request. Raises Refused."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise Refused(415, "send JSON, with `Content-Type: application/json`")
    data = b""
    async for part in request.stream():
        data += part
        if len(data) > MAX_BODY:
            raise Refused(413, f"the request is longer than {MAX_BODY} bytes")
    try:
        body = json.loads(data or b"{}")
        json.dumps(body, ensure_ascii=False).encode()  # fails for a lone surrogate, which nothing here can store
        return body
    except (ValueError, RecursionError):
        raise Refused(400, "the request is not JSON") from None


def check_body(body: Any, schema: dict[str, Schema], required: tuple[str, ...]) -> dict[str, Any]:
    """The body, checked against the schemas. Raises Refused."""
    if not isinstance(body, dict):
        raise Refused(400, "the request must be a JSON object")
    for name in body:
        if name not in schema:
            raise Refused(400, f"there is no property '{name[:40]}'; choose from {', '.join(schema) or 'none'}")
    for name in required:
        if name not in body:
            raise Refused(400, f"the property '{name}' is missing")
    for name, value in body.items():
        _check_value(name, value, schema[name])
    return body


def _check_value(name: str, value: Any, schema: Schema) -> None:
    kinds: dict[str, Any] = {"string": str, "number": (int, float), "integer": int, "boolean": bool}
    kind = schema["type"]
    if not isinstance(value, kinds[kind]) or (isinstance(value, bool) and kind != "boolean"):
        raise Refused(400, f"'{name}' must be of type {kind}")
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and not low <= value <= high:  # also refuses NaN
        raise Refused(400, f"'{name}' must lie between {low:g} and {high:g}")
    if "maxLength" in schema and len(value) > schema["maxLength"]:
        raise Refused(400, f"'{name}' is longer than {schema['maxLength']} characters")
    if "enum" in schema and value not in schema["enum"]:
        raise Refused(400, f"'{name}' must be one of {', '.join(schema['enum'])}")


# --- the operations ----------------------------------------------------------------------------------------------


async def healthz(api: Api, request: Request, body: dict[str, Any]) -> Response:
    age = time.monotonic() - api.model.feed.active
    fine = age <= STALE
    return JSONResponse({"status": "ok" if fine else "stale", "age_s": round(age, 2)}, 200 if fine else 503)


async def metrics(api: Api, request: Request, body: dict[str, Any]) -> Response:
    text = prometheus(api.model, len(api.clients), api.clients.sent_bytes, api.guard.wrong, api.door.closed)
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


async def run(api: Api, request: Request, body: dict[str, Any]) -> Response:
    return JSONResponse(api.model.run_info() or {})


async def result(api: Api, request: Request, body: dict[str, Any]) -> Response:
    values = api.model.result_values()
    stale = time.monotonic() - api.model.feed.active > STALE
    if values is None or stale:
        raise Refused(503, "the run has stalled" if stale else "there is no result yet")
    return JSONResponse(values)


async def state(api: Api, request: Request, body: dict[str, Any]) -> Response:
    return JSONResponse(api.model.state(time.monotonic()))


async def get_trend(api: Api, request: Request, body: dict[str, Any]) -> Response:
    given = request.query_params.get("seconds")
    try:
        seconds = None if given is None else float(given)
    except ValueError:
        seconds = 0.0
    if seconds is not None and not MIN_TREND <= seconds <= MAX_TREND:
        raise Refused(400, f"'seconds' must lie between {MIN_TREND:g} and {MAX_TREND:g}; leave it out for all")
    return JSONResponse(api.model.trend_values(seconds, time.monotonic()))


async def get_markers(api: Api, request: Request, body: dict[str, Any]) -> Response:
    return JSONResponse({"markers": api.model.marks_values()})


def _demand_live(api: Api, what: str) -> None:
    info = api.model.feed.info
    if info is not None and (said := info.refusal(what)):
        raise Refused(409, said)


async def add_marker(api: Api, request: Request, body: dict[str, Any]) -> Response:
    text = "".join(c for c in body.get("text", "") if c.isprintable()).strip()
    rating = body.get("rating")
    if not text and rating is None:
        raise Refused(400, "a marker needs a text, a rating from 0 to 10, or both")
    _demand_live(api, "it takes no notes")
    age = body.get("age", 0.0)
    await api.act(request, "marker", text=text, rating=rating, **({"age": round(age, 3)} if age else {}))
    api.model.controls.mark(text, rating, age=age)
    return JSONResponse({"text": text, "rating": rating, "recorded": api.model.controls.is_recording}, 202)


async def correct_rating(api: Api, request: Request, body: dict[str, Any]) -> Response:
    model, rating = api.model, body.get("rating")
    _demand_live(api, "its ratings stay as they are")
    if (mark := model.ratings.find(body["t"])) is None:
        raise Refused(404, "there is no such rating in this run; list them with GET /api/v1/markers")
    if why := model.ratings.lost(mark, model.part):
        raise Refused(409, why)
    await api.act(request, "correct rating", of=round(mark.t, 3), before=mark.rating, after=rating)
    model.controls.mark(rating=rating, corrects=mark.t)
    return JSONResponse({"t": body["t"], "rating": rating, "recorded": model.controls.is_recording}, 202)


async def rest(api: Api, request: Request, body: dict[str, Any]) -> Response:
    seconds = body.get("seconds", 120)
    _demand_live(api, "nobody rests in it")
    await api.act(request, "rest", seconds=seconds)
    api.model.controls.rest(seconds)
    return JSONResponse({"seconds": seconds}, 202)


async def set_recording(api: Api, request: Request, body: dict[str, Any]) -> Response:
    controls = api.model.controls
    if controls.recording is None:
        raise Refused(409, "this run has no recorder; start it with --record DIR")
    await api.act(request, "recording", on=body["on"])
    if body["on"]:
        controls.start_recording()
    else:
        controls.stop_recording()
    return JSONResponse({"requested": body["on"]}, 202)


async def begin_session(api: Api, request: Request, body: dict[str, Any]) -> Response:
    subject, controls, info = body["subject"], api.model.controls, api.model.feed.info
    _demand_live(api, "no session begins in it")
    if subject:
        check_subject(subject)
    whose = info.bundle.subject if info is not None else ""
    if subject and whose and subject != whose:
        raise Refused(
            409, f"these weights are personalised to {whose}, for nobody else; begin the run with the general bundle"
        )
    if body["record"] and controls.recording is None:
        raise Refused(409, "this run has no recorder; start it with --record DIR")
    await api.act(request, "session", **body)
    controls.begin_session(**body)
    api.model.session = {"subject": subject, "began": round(time.time(), 3)}
    return JSONResponse(api.model.session, 202)


async def get_alarms(api: Api, request: Request, body: dict[str, Any]) -> Response:
    return JSONResponse(api.model.snapshot(time.monotonic()))


async def acknowledge(api: Api, request: Request, body: dict[str, Any]) -> Response:
    id = body.get("id")
    if id is not None and id not in api.model.alarms.alarms:
        raise Refused(404, f"there is no alarm '{id}'")
    await api.act(request, "acknowledge", id=id or "all")
    api.model.judging.acknowledge(time.monotonic(), id, _client(request))
    return JSONResponse(api.model.snapshot(time.monotonic()))


async def get_events(api: Api, request: Request, body: dict[str, Any]) -> Response:
    return JSONResponse({"events": api.model.events.values()})


async def get_signals(api: Api, request: Request, body: dict[str, Any]) -> Response:
    event = api.model.events.find(request.path_params["id"])
    if event is None:
        raise Refused(404, "there is no such event; list them with GET /api/v1/events")
    return JSONResponse(api.model.around(event))


async def label(api: Api, request: Request, body: dict[str, Any]) -> Response:
    _demand_live(api, "it takes no labels")
    if body["event"] not in api.model.events:
        raise Refused(404, "there is no such event; list them with GET /api/v1/events")
    if not api.model.controls.is_recording:
        raise Refused(409, NOT_RECORDED)
    await api.act(request, "label", event=body["event"], label=body["label"])
    api.model.events.label(body["event"], body["label"], _client(request))
    return JSONResponse({"event": body["event"], "label": body["label"]}, 202)


async def pause(api: Api, request: Request, body: dict[str, Any]) -> Response:
    seconds = body["seconds"]
    await api.act(request, "pause alarms" if seconds else "resume alarms", seconds=seconds)
    api.model.judging.pause(seconds, time.monotonic())
    return JSONResponse(api.model.snapshot(time.monotonic()))


async def set_alarm(api: Api, request: Request, body: dict[str, Any]) -> Response:
    _demand_live(api, "it has no alarms")
    if "pain" not in api.model.alarms.alarms:
        info = api.model.feed.info
        if info is not None and "pain" in info.bundle.task.outputs and info.alarms_off:
            raise Refused(409, f"alarms off: {info.alarms_off}; start the run with --demo-alarms to try them")
        raise Refused(409, "this run estimates no pain, so it has no physiological alarm")
    settings = replace(api.model.alarms.settings, **body)
    settings.check()
    await api.act(request, "alarm settings", before=asdict(api.model.alarms.settings), after=asdict(settings))
    api.model.judging.set(settings)
    return JSONResponse(asdict(settings))


async def set_view(api: Api, request: Request, body: dict[str, Any]) -> Response:
    """The browser reports that a person changed how the face is shown, for the audit log."""
    await api.act(request, "face view", mode=body["face"])
    return JSONResponse({"face": body["face"]})


async def get_recordings(api: Api, request: Request, body: dict[str, Any]) -> Response:
    return JSONResponse({"recordings": await api.from_disk(api.recordings.listing)})


async def get_recording(api: Api, request: Request, body: dict[str, Any]) -> Response:
    id = request.path_params["id"]
    await api.act(request, "open recording", id=id[:80])
    return JSONResponse(await api.from_disk(api.recordings.view, id))


async def get_frame(api: Api, request: Request, body: dict[str, Any]) -> Response:
    try:
        t = float(request.query_params.get("t", "0"))
    except ValueError:
        t = -1.0
    if not 0 <= t < 1e7:
        raise Refused(400, "'t' must be a time in seconds")
    mode = request.query_params.get("face", api.face)
    if mode not in ("show", "blur"):
        raise Refused(400, "'face' must be show or blur")
    data = await api.from_disk(api.recordings.frame, request.path_params["id"], t, blur=mode == "blur")
    return Response(data, media_type="image/jpeg")


async def export(api: Api, request: Request, body: dict[str, Any]) -> Response:
    id = request.path_params["id"]
    await api.act(request, "export recording", id=id[:80])
    file: IO[bytes] = await api.from_disk(api.recordings.export, id)

    async def parts() -> Any:
        try:
            while data := await asyncio.to_thread(file.read, 1 << 16):
                yield data
        finally:
            file.close()

    headers = {"content-disposition": 'attachment; filename="recording.zip"'}
    return StreamingResponse(parts(), media_type="application/zip", headers=headers)


async def get_audit(api: Api, request: Request, body: dict[str, Any]) -> Response:
    return JSONResponse({"actions": api.audit.recent()})


async def get_openapi(api: Api, request: Request, body: dict[str, Any]) -> Response:
    return JSONResponse(openapi(api.guard.token is not None))


_NUMBER: Schema = {"type": "number"}
_SETTINGS = {
    "limit": {**_NUMBER, "minimum": 0.05, "maximum": 1.0, "description": "pain probability at which the alarm begins"},
    "hysteresis": {**_NUMBER, "minimum": 0.0, "maximum": 0.95, "description": "how far below the limit it ends"},
    "delay": {**_NUMBER, "minimum": 0.0, "maximum": 60.0, "description": "seconds that the condition must last"},
    "enabled": {"type": "boolean"},
}
assert set(_SETTINGS) == set(AlarmSettings.__dataclass_fields__)
_RATING: Schema = {"type": "integer", "minimum": 0, "maximum": 10}
_AGE: Schema = {**_NUMBER, "minimum": 0, "maximum": MAX_AGE, "description": "seconds since it was given"}
_FACE: Schema = {"type": "string", "enum": list(MODES)}
_RECORDING = f"{PREFIX}/recordings/{{id}}"

OPERATIONS = (
    Operation("GET", "/healthz", "200 while the run is working, 503 if it has stalled", healthz, open=True),
    Operation("GET", "/metrics", "Counts and gauges for Prometheus", metrics, answer="text/plain"),
    Operation("GET", f"{PREFIX}/openapi.json", "This document", get_openapi),
    Operation("GET", f"{PREFIX}/run", "Bundle, precision, sources, task", run),
    Operation("GET", f"{PREFIX}/result", "The newest result; 503 without one, or if the run has stalled", result),
    Operation("GET", f"{PREFIX}/state", "Sensors, alarms, recording, levels", state),
    Operation("GET", f"{PREFIX}/markers", "The last markers of this run", get_markers),
    Operation(
        "POST", f"{PREFIX}/markers", "Add a marker now: a note, a pain rating 0-10, or both", add_marker,
        {"text": {"type": "string", "maxLength": MAX_TEXT}, "rating": _RATING, "age": _AGE},
    ),
    Operation(
        "POST", f"{PREFIX}/markers/correct", "Correct the rating given at `t`; without `rating` it is withdrawn",
        correct_rating, {"t": {"type": "number", "minimum": 0, "maximum": 1e9}, "rating": _RATING}, ("t",),
    ),
    Operation(
        "POST", f"{PREFIX}/recording", "Start or stop recording", set_recording, {"on": {"type": "boolean"}}, ("on",)
    ),
    Operation("POST", f"{PREFIX}/rest", "The person rests from now on; results then say how far from it they are", rest,
              {"seconds": {"type": "number", "minimum": SHORTEST_REST, "maximum": LONGEST_REST}}),
    Operation(
        "POST", f"{PREFIX}/session", "The session of a person begins: with a code or none, recorded or not; without "
        "`rest`, what was measured at rest last is forgotten", begin_session,
        {"subject": {"type": "string", "maxLength": 32, "pattern": f"^({SUBJECT})?$"}, "record": {"type": "boolean"},
         "rest": {"type": "boolean"}},
        ("subject", "record", "rest"),
    ),
    Operation(
        "GET", f"{PREFIX}/trend", "Lowest, mean and highest outputs in bins of time, gaps and ratings", get_trend,
        query={"seconds": {"type": "number", "minimum": MIN_TREND, "maximum": MAX_TREND}},
    ),
    Operation("GET", f"{PREFIX}/alarms", "The alarms shown", get_alarms),
    Operation(
        "POST", f"{PREFIX}/alarms/acknowledge", "Acknowledge one alarm, or all", acknowledge,
        {"id": {"type": "string", "maxLength": 40}},
    ),
    Operation(
        "POST", f"{PREFIX}/alarms/pause", "No flashing and no sound for this many seconds; 0 resumes", pause,
        {"seconds": {**_NUMBER, "minimum": 0, "maximum": MAX_PAUSE}}, ("seconds",),
    ),
    Operation("POST", f"{PREFIX}/alarms/settings", "Threshold, hysteresis, delay of the pain alarm", set_alarm,
        _SETTINGS),
    Operation("GET", f"{PREFIX}/events", "Every time an alarm signalled in this run, oldest first", get_events),
    Operation(
        "GET", f"{PREFIX}/events/{{id}}/signals", "Outputs, attention and EDA, 30 s before and after an event",
        get_signals,
    ),
    Operation(
        "POST", f"{PREFIX}/events/label", "Write into the recording whether an event was true", label,
        {"event": {"type": "string", "maxLength": 80}, "label": {"type": "string", "enum": list(LABELS)}},
        ("event", "label"),
    ),
    Operation("POST", f"{PREFIX}/view", "Note in the audit log how the face is shown", set_view,
        {"face": _FACE}, ("face",)),
    Operation("GET", f"{PREFIX}/recordings", "Past recordings, newest first", get_recordings),
    Operation("GET", _RECORDING, "Results, markers and EDA of a recording", get_recording),
    Operation(
        "GET", f"{_RECORDING}/frame", "The recorded picture at a time", get_frame,
        query={"t": {"type": "number", "minimum": 0}, "face": {"type": "string", "enum": ["show", "blur"]}},
        answer="image/jpeg",
    ),
    Operation("GET", f"{_RECORDING}/export", "A zip archive of CSV tables", export, answer="application/zip"),
    Operation("GET", f"{PREFIX}/audit", "The actions since the run began", get_audit),
)  # fmt: skip


def openapi(with_token: bool) -> dict[str, Any]:
    """The OpenAPI 3.1 document of `OPERATIONS`."""
    paths: dict[str, Any] = {}
    for operation in OPERATIONS:
        entry: dict[str, Any] = {
            "summary": operation.summary,
            "operationId": operation.handler.__name__,
            "responses": {
                "200" if operation.method == "GET" else "2XX": {
                    "description": "see the summary",
                    "content": {operation.answer: {}},
                },
                "4XX": {"$ref": "#/components/responses/Refused"},
            },
        }
        parameters: list[dict[str, Any]] = [{"name": n, "in": "query", "schema": s} for n, s in operation.query.items()]
        if "{id}" in operation.path:
            parameters.append({"name": "id", "in": "path", "required": True, "schema": {"type": "string"}})
        if parameters:
            entry["parameters"] = parameters
        if operation.body is not None:
            schema: Schema = {"type": "object", "properties": operation.body, "additionalProperties": False}
            if operation.required:
                schema["required"] = list(operation.required)
            entry["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
        if operation.open:
            entry["security"] = []
        paths.setdefault(operation.path, {})[operation.method.lower()] = entry
    error: Schema = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
    refused = {"description": "the reason, in one sentence", "content": {"application/json": {"schema": error}}}
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "jmt-edge live",
            "version": __version__,
            "description": "A running estimate of pain or affect. Research prototype; not for clinical use.",
        },
        "paths": paths,
        "components": {"responses": {"Refused": refused}},
    }
    if with_token:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
    return document
