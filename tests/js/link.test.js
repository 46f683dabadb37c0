import assert from "node:assert/strict";
import { beforeEach, mock, test } from "node:test";
import { Socket, module, openPage } from "./page.js";

const { window, asked, answers } = openPage("http://bed-3.local:8765/#token=s3cret");
let now = 0;
Object.defineProperty(globalThis, "performance", { value: { now: () => now }, configurable: true });
const { Link, ask, setToken, takeToken } = await module("link.js");

let states, messages, refusals;
function open() {
  mock.timers.reset(); // and with them the links of other tests
  mock.timers.enable({ apis: ["setTimeout", "setInterval"] });
  Socket.all.length = 0;
  states = [];
  messages = [];
  refusals = [];
  const link = new Link({
    json: (message) => messages.push(message.type), frame: (buffer) => messages.push(buffer), traces: (buffer) => messages.push(buffer),
    state: (name, _, quiet) => states.push([name, quiet]), refused: (reason) => refusals.push(reason),
  });
  return { link, socket: Socket.all[0] };
}

/** `ms` on every clock. */
function wait(ms) {
  for (let i = 0; i < ms / 50; i++) {
    now += 50;
    mock.timers.tick(50);
  }
}

function binary(kind, number) {
  const buffer = new ArrayBuffer(16), view = new DataView(buffer);
  view.setUint8(0, kind);
  view.setUint32(4, number, true);
  return buffer;
}

beforeEach(() => setToken(""));

test("the token of the address is kept for the session and taken out of sight", () => {
  takeToken();
  assert.equal(window.sessionStorage.getItem("jmt-edge-token"), "s3cret");
  assert.equal(window.location.href, "http://bed-3.local:8765/");
});

test("a request has the token, and a body only where there is one", async () => {
  answers["/api/v1/x"] = {};
  await ask("/api/v1/x");
  setToken("s3cret");
  await ask("/api/v1/x", { on: true });
  const [[, first], [, second]] = asked.splice(0);
  assert.deepEqual([first.headers, first.method, first.cache], [{}, undefined, "no-store"]);
  assert.deepEqual([second.headers.Authorization, second.method, second.body], ["Bearer s3cret", "POST", '{"on":true}']);
});

test("a refusal is the server's sentence; without one, its status; without an answer, that", async () => {
  answers["/api/v1/x"] = { status: 409, body: { error: "recording is off" } };
  await assert.rejects(ask("/api/v1/x"), /^Error: recording is off$/);
  answers["/api/v1/x"] = { status: 500, body: {} };
  await assert.rejects(ask("/api/v1/x"), /^Error: the server answered 500$/);
  answers["/api/v1/x"] = new TypeError("NetworkError when attempting to fetch resource");
  await assert.rejects(ask("/api/v1/x"), /^Error: the server does not answer$/);
});

test("the socket is opened beside the page, with token and view", () => {
  setToken("s3cret");
  const { link, socket } = open();
  assert.equal(socket.url, "ws://bed-3.local:8765/ws");
  link.look({ face: "blur" });
  socket.sent.length = 0;
  socket.onopen();
  assert.deepEqual(socket.sent, [{ type: "token", token: "s3cret" }, { type: "view", face: "blur" }]);
});

test("each kind of message goes to its place, and the newest number is answered", () => {
  const { socket } = open();
  const picture = binary(1, 7), traces = binary(2, 8);
  for (const message of [{ type: "hello" }, picture, traces]) {
    wait(150);
    socket.say(message);
  }
  assert.deepEqual(messages, ["hello", picture, traces]);
  assert.deepEqual(socket.sent, [{ type: "ack", n: 7 }, { type: "ack", n: 8 }]);
});

test("answers are at most ten a second, apart from those to a state", () => {
  const { socket } = open();
  wait(150);
  for (let n = 1; n <= 5; n++) socket.say(binary(2, n));
  socket.say({ type: "state" });
  assert.deepEqual(socket.sent.map(({ n }) => n), [1, 5]);
});

test("without messages the page is stale within 1.5 s, and says for how long", () => {
  const { socket } = open();
  socket.say({ type: "state" });
  wait(1200);
  assert.deepEqual(states.map(([name]) => name), ["live"]);
  wait(300);
  const [name, quiet] = states[1];
  assert.equal(name, "stale");
  assert.ok(quiet >= 1.2 && quiet <= 1.5, String(quiet));
  socket.say({ type: "state" });
  assert.equal(states[2][0], "live");
});

test("a frozen server is left after 8 s, and tried again", () => {
  const { socket } = open();
  socket.say({ type: "state" });
  wait(8500);
  assert.equal(socket.closed, true);
  assert.equal(states.at(-1)[0], "lost");
  wait(1000);
  assert.ok(Socket.all.length > 1);
});

test("it is tried again at growing intervals of at most 6.25 s", () => {
  open();
  const gaps = [];
  for (let i = 0; i < 12; i++) {
    const tries = Socket.all.length, since = now;
    Socket.all.at(-1).close();
    while (Socket.all.length === tries) wait(50);
    gaps.push(now - since);
  }
  assert.ok(gaps[0] <= 450 && gaps.at(-1) >= 3700, String(gaps));
  assert.ok(Math.max(...gaps) <= 6300, String(gaps));
});

test("a normal end is neither lost nor stale, and the next run is looked for every 5 s", () => {
  const { socket } = open();
  socket.say({ type: "state", ended: true });
  socket.close();
  assert.deepEqual(states.map(([name]) => name), ["ended"]);
  wait(4900);
  assert.equal(Socket.all.length, 1);
  wait(200);
  assert.equal(Socket.all.length, 2);
  Socket.all[1].close();
  assert.deepEqual(states.map(([name]) => name), ["ended"]);
});

test("a run that failed is lost, not ended", () => {
  const { socket } = open();
  socket.say({ type: "state", ended: true, failed: "no space" });
  socket.close();
  assert.deepEqual(states.map(([name]) => name), ["live", "lost"]);
});

test("a server that waits for its run says so", () => {
  const { socket } = open();
  socket.say({ type: "waiting" });
  assert.equal(states[0][0], "waiting");
});

test("a wrong token is asked for, and not tried again by itself", () => {
  const { link, socket } = open();
  socket.onclose({ code: 1008, reason: "wrong token" });
  wait(20_000);
  assert.deepEqual([states.map(([name]) => name), refusals, Socket.all.length], [["refused"], [""], 1]); // none was given
  setToken("wrong");
  link.retry();
  Socket.all[1].onclose({ code: 1008, reason: "wrong token" });
  assert.deepEqual(refusals, ["", "wrong token"]);
});

test("the close of a socket that was given up changes nothing", () => {
  const { socket } = open();
  socket.say({ type: "state" });
  socket.close();
  wait(1000);
  const before = states.length;
  socket.onclose({ code: 1006, reason: "" });
  assert.equal(states.length, before);
});
