// The page without a browser, for unit tests: index.html's elements by happy-dom, and stand-ins for what it lacks
// (canvases, sound, sockets, requests), which remember what was asked of them.
import { readFileSync } from "node:fs";
import { registerHooks } from "node:module";
import { Window } from "happy-dom";

export const STATIC = new URL("../../jmt_edge/live/page/static/", import.meta.url);

// the station takes what it shares with the page from the server's root
registerHooks({ resolve: (name, context, next) => next(name.startsWith("/static/") ? new URL(name.slice(8), STATIC).href : name, context) });

/** A canvas' pen: `calls` holds [method, ...arguments] in order; every other property is remembered as set. */
export class Pen {
  constructor() {
    this.calls = [];
    return new Proxy(this, {
      get: (pen, key) => {
        if (key in pen) return pen[key];
        return (...given) => {
          pen.calls.push([key, ...given]);
          return { width: 7 * String(given[0]).length }; // of measureText
        };
      },
    });
  }

  of(method) {
    return this.calls.filter(([called]) => called === method).map(([, ...given]) => given);
  }
}

/** uPlot as the charts use it; the last one made is `Plot.last`. Positions: 100 px a unit, downwards. */
export class Plot {
  constructor(options, data, host) {
    Object.assign(this, { options, data, host, redrawn: 0, ctx: new Pen(), bbox: { left: 50, top: 0, width: 500, height: 200 }, width: 600 });
    Plot.last = this;
  }

  setData(data) {
    this.data = data;
  }

  setSize(asked) {
    this.size = asked;
  }

  redraw() {
    this.redrawn++;
  }

  destroy() {
    this.destroyed = true;
  }

  valToPos(value) {
    return 100 * value;
  }

  draw() {
    for (const hook of [...this.options.hooks.drawClear, ...this.options.hooks.draw]) hook(this);
  }
}

class Socket {
  static OPEN = 1;

  constructor(url) {
    Object.assign(this, { url, readyState: 1, sent: [], closed: false });
    Socket.all.push(this);
  }

  send(text) {
    this.sent.push(JSON.parse(text));
  }

  close() {
    this.closed = true;
    this.onclose?.({ code: 1006, reason: "" });
  }

  say(message) {
    this.onmessage({ data: typeof message === "string" || message instanceof ArrayBuffer ? message : JSON.stringify(message) });
  }
}
Socket.all = [];
export { Socket };

/** Set up the globals of a page at `url`; call it before the modules under test are imported. Returns {window, asked,
 * answers, pens}: asked are the requests [path, options]; answers[path] is the JSON (or a function) that is answered. */
export function openPage(url = "http://bed-3.local:8765/") {
  const window = new Window({ url, width: 1280, height: 800 });
  const html = readFileSync(new URL("index.html", STATIC), "utf8");
  window.document.write(html.replace(/<script[^]*?<\/script>|<link[^>]*>/g, ""));
  const pens = new Map();
  window.HTMLCanvasElement.prototype.getContext = function () {
    if (!pens.has(this)) pens.set(this, new Pen());
    return pens.get(this);
  };
  const asked = [], answers = {};
  const fetch = async (path, options = {}) => {
    asked.push([path, options]);
    const found = typeof answers[path] === "function" ? answers[path]() : answers[path];
    if (found instanceof Error) throw found;
    const { status = 200, body = found } = found?.status ? found : {};
    if (body === undefined) throw new Error(`the test has no answer for ${path}`);
    return { ok: status < 300, status, json: async () => body, blob: async () => body };
  };
  const names = {
    window, document: window.document, location: window.location, history: window.history, sessionStorage: window.sessionStorage,
    localStorage: window.localStorage, getComputedStyle: () => ({ getPropertyValue: (name) => ` ${name} ` }),
    devicePixelRatio: 1, ResizeObserver: class { observe() {} disconnect() { this.off = true; } }, uPlot: Plot, WebSocket: Socket, fetch,
    innerWidth: 1280,
  };
  for (const [name, value] of Object.entries(names)) Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
  return { window, asked, answers, pens };
}

/** Give an element a size, which there is none of without a layout. */
export function size(node, width, height) {
  for (const [name, value] of [["clientWidth", width], ["clientHeight", height]]) Object.defineProperty(node, name, { value, configurable: true });
}

/** Let promises that are ready run. */
export const settled = () => new Promise((done) => setImmediate(done));

export const module = (name) => import(new URL(name, STATIC));
