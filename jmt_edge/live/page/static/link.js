// The connection: one WebSocket that reconnects automatically and detects when its data is stale.

import { tr, translated } from "./text.js";

const QUIET = 1200; // ms without a message after which the page is stale; the server sends at least two per second
const ACK = 100; // ms between two answers
const NEXT_RUN = 5000; // ms between two checks for the next run, after one has ended

let token = sessionStorage.getItem("jmt-edge-token") || "";

/** Take the token from the address, `#token=...`, and remove it there, so that it is neither seen nor shared. */
export function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    setToken(given);
    history.replaceState(null, "", location.pathname);
  }
}

export function setToken(value) {
  token = value;
  sessionStorage.setItem("jmt-edge-token", value);
}

/** fetch() with the token; an answer that is not 2xx becomes an Error with the server's sentence, none at all one with
 * `unanswered`. more: other options of fetch(). */
export async function ask(path, body, more = {}) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const options = { headers, cache: "no-store", ...more };
  if (body !== undefined) {
    headers["Content-Type"] = "application/json";
    Object.assign(options, { method: "POST", body: JSON.stringify(body) });
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw Object.assign(new Error(tr("the server does not answer")), { unanswered: true });
  }
  if (!answer.ok) {
    const problem = await answer.json().catch(() => ({}));
    throw new Error(translated(problem.error) || tr("the server answered {status}", { status: answer.status }));
  }
  return answer;
}

export class Link {
  /** on: {json(message), frame(buffer), traces(buffer), state(name, text, quiet), refused(reason)}. Names of states:
   * waiting (for a run to start), live, stale (connected, but no messages), lost, refused (a token is needed), ended
   * (reported by the run). reason is empty if no token was given yet. */
  constructor(on) {
    this.on = on;
    this.view = {};
    this.tries = 0;
    this.heard = 0;
    this.state = "";
    this.answered = 0;
    this.ended = false;
    setInterval(() => this.#watch(), 250);
    this.#open();
  }

  /** Tell the server what this page shows; repeated after a reconnection. */
  look(view) {
    Object.assign(this.view, view);
    this.#send({ type: "view", ...this.view });
  }

  #open() {
    const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    this.last = 0;
    this.opened = performance.now();
    socket.onopen = () => {
      if (token) socket.send(JSON.stringify({ type: "token", token }));
      if (Object.keys(this.view).length) this.#send({ type: "view", ...this.view });
    };
    socket.onmessage = (event) => {
      this.heard = performance.now();
      this.tries = 0;
      if (typeof event.data === "string") {
        const message = JSON.parse(event.data);
        if (message.type === "state") this.ended = message.ended && !message.failed;
        this.on.json(message);
        if (message.type === "state") this.#answer(true);
        if (message.type === "waiting") this.#set("waiting", tr("starting"));
        else if (this.ended) this.#set("ended", tr("ended"));
        else this.#set("live", tr("live"));
        return;
      }
      this.last = new DataView(event.data).getUint32(4, true);
      const kind = new Uint8Array(event.data, 0, 1)[0];
      if (kind === 1) this.on.frame(event.data);
      else this.on.traces(event.data);
      this.#answer(false);
    };
    socket.onclose = (event) => {
      if (this.socket !== socket) return;
      this.socket = null;
      if (event.code === 1008 && event.reason === "wrong token") {
        this.#set("refused", tr("token needed"));
        this.on.refused(token ? event.reason : "");
        return;
      }
      if (this.ended) {
        this.#set("ended", tr("ended"));
        setTimeout(() => this.#open(), NEXT_RUN);
        return;
      }
      this.#set("lost", tr("no connection"));
      const wait = Math.min(5000, 300 * 1.6 ** this.tries++) * (0.75 + Math.random() / 2);
      setTimeout(() => this.#open(), wait);
    };
  }

  retry() {
    if (!this.socket) this.#open();
  }

  #answer(now) {
    const at = performance.now();
    if (this.last && (now || at - this.answered >= ACK)) {
      this.answered = at;
      this.#send({ type: "ack", n: this.last });
    }
  }

  #send(message) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  #watch() {
    const quiet = performance.now() - Math.max(this.heard, 0);
    if (this.state === "live" && quiet > QUIET) this.#set("stale", tr("stale"));
    // a frozen server keeps the connection open: connect again
    if (this.socket && performance.now() - Math.max(this.heard, this.opened) > 8000) this.socket.close();
  }

  #set(state, text) {
    if (state !== this.state) {
      this.state = state;
      this.on.state(state, text, this.heard ? (performance.now() - this.heard) / 1000 : null);
    }
  }
}
