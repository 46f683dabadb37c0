// Charts over time, by uPlot, which index.html loads. Colours come from the style sheet, so a change of theme is one redraw.
/* global uPlot */

import { minutesSeconds } from "./dom.js";
import { clockTime, percentParts, plain } from "./text.js";

export const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const FONT = 14; // px
const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 14400, 21600, 43200, 86400]; // s between two times

const PARTS = ["shade", "marks", "lines", "dots", "rings", "hatch", "ticks"]; // functions that give what is drawn

const charts = new WeakMap(); // host -> the chart in it

/** Points between two gaps, which have no line. */
function lonely(u, i) {
  const v = u.data[i], found = [];
  for (let at = 0; at < v.length; at++) if (v[at] !== null && (v[at - 1] ?? null) === null && (v[at + 1] ?? null) === null) found.push(at);
  return found.length ? found : null;
}

/** Break the lines of [t, series...] in the middle of every [start, end]. */
export function broken([t, ...series], gaps) {
  const out = [[], ...series.map(() => [])];
  let next = 0;
  for (let i = 0; i < t.length; i++) {
    while (next < gaps.length && (gaps[next][0] + gaps[next][1]) / 2 < t[i]) {
      const [from, to] = gaps[next++];
      if (!i) continue;
      out[0].push((from + to) / 2);
      for (const line of out.slice(1)) line.push(null);
    }
    out[0].push(t[i]);
    series.forEach((values, s) => out[s + 1].push(values[i]));
  }
  return out;
}

/** A chart of [t, series...] in `host`. span: seconds shown (null: all data), at the run's start only `start`; scale:
 * factor of the axis' numbers; whole: () => [from, to] of all data, where it is not this chart's own.
 * shade: () => [[t0, t1, colour], ...]; marks: () => [t, ...];
 * lines: () => [[value, colour], ...]; dots: () => [[t, value], ...]; rings: the same, round;
 * hatch: () => [[t0, t1], ...] without data; ticks: () => [[value, letter, colour?], ...], in `right` px beside it;
 * left: px that the values' axis takes at least, so that charts below one another agree;
 * band: series come in threes, the lower and upper edge of a band and a line; clock: () => Unix time at t = 0, null where t is not a clock's. */
export class Chart {
  constructor(host, { series, range, span = null, start = span, unit = "", scale = 1, whole, right = 24, left = 0, band = false, clock = () => null, ...parts }) {
    charts.get(host)?.remove(); // uPlot's listeners and the observer would keep it, and its data, for as long as the page
    charts.set(host, this);
    this.host = host;
    this.parts = Object.fromEntries(PARTS.map((name) => [name, parts[name] ?? (() => [])]));
    this.span = span;
    this.range = range;
    this.end = 0;
    const axis = {
      stroke: () => css("--dim"), grid: { stroke: () => css("--line"), width: 1 }, ticks: { show: false },
      font: `${FONT}px system-ui, sans-serif`,
    };
    // the widest label, so that none is cut
    const wide = (u, labels) => {
      u.ctx.save();
      u.ctx.font = `${FONT}px system-ui, sans-serif`;
      const width = Math.max(0, ...(labels ?? []).map((label) => u.ctx.measureText(label).width));
      u.ctx.restore();
      return Math.max(left, Math.ceil(width) + 12);
    };
    // empty for a time's label that the chart's edge would cut
    const uncut = (u, t, label) => {
      const at = u.bbox.left / devicePixelRatio + u.valToPos(t, "x"), half = wide(u, [label]) / 2 - 5;
      return at - half < 0 || at + half > u.width ? "" : label;
    };
    this.plot = new uPlot(
      {
        width: 100, height: 90, cursor: { show: false }, legend: { show: false }, padding: [10, right, 0, 0], // half a time's label
        bands: series.flatMap(({ colour }, i) => (!band || i % 3 ? [] : [{ series: [i + 2, i + 1], fill: () => `color-mix(in srgb, ${css(colour)} 30%, transparent)` }])),
        scales: {
          x: { time: false, range: () => (span ? this.#window(span, start) : whole ? whole() : this.#whole()) },
          y: { range: (_, low, high) => (typeof range === "function" ? range(low, high) : range) },
        },
        axes: [
          {
            ...axis, size: 26, space: 70, incrs: STEPS,
            splits: (u, i, low, high, step) => {
              const zero = clock() ?? 0, found = [];
              for (let at = Math.ceil((low + zero) / step) * step; at <= high + zero; at += step) found.push(at - zero);
              return found;
            },
            values: (u, times, i, space, step) => times.map((t) => uncut(u, t, clock() !== null ? clockTime(clock() + t, step < 60) : t < 0 ? "" : minutesSeconds(t))),
          },
          { ...axis, size: wide, values: (_, levels) => levels.map((v) => `${plain(v * scale)}${unit === "%" ? percentParts(v)[1] : unit}`), space: 34 },
        ],
        series: [
          {},
          ...series.map(({ colour, fill, thin }) => ({
            stroke: () => (thin ? "transparent" : css(colour)), width: 2.2, spanGaps: false,
            points: { show: false, filter: lonely, size: 5, stroke: () => css(colour), fill: () => css(colour) },
            ...(fill ? { fill: () => `color-mix(in srgb, ${css(colour)} 16%, transparent)` } : {}),
          })),
        ],
        hooks: { drawClear: [(u) => this.#under(u)], draw: [(u) => this.#over(u)] },
      },
      [[], ...series.map(() => [])],
      host,
    );
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(host);
    this.resize();
  }

  resize() {
    const width = this.host.clientWidth, height = this.host.clientHeight;
    if (width > 20 && height > 20) this.plot.setSize({ width, height });
  }

  /** Another chart takes its place. */
  remove() {
    this.observer.disconnect();
    this.plot.destroy();
  }

  /** data: [[t...], [v...], ...]; end: the right edge in seconds. */
  set(data, end) {
    this.end = end;
    this.plot.setData(data);
  }

  redraw() {
    this.plot.redraw(false, true);
  }

  // fills from the left, then scrolls
  #window(span, start) {
    const end = Math.max(this.end, start);
    return [Math.max(0, end - span), end];
  }

  #whole() {
    const t = this.plot?.data?.[0] || [];
    return t.length ? [t[0], Math.max(t[t.length - 1], t[0] + 1)] : [0, 1];
  }

  #under(u) {
    const { ctx, bbox } = u;
    for (const [from, to] of this.parts.hatch()) this.#hatched(u, from, to);
    for (const [from, to, colour] of this.parts.shade()) {
      const left = Math.max(bbox.left, u.valToPos(from, "x", true));
      const right = Math.min(bbox.left + bbox.width, u.valToPos(to, "x", true));
      if (right <= left) continue;
      ctx.save();
      ctx.fillStyle = `color-mix(in srgb, ${css(colour)} 22%, transparent)`;
      ctx.fillRect(left, bbox.top, right - left, bbox.height);
      ctx.restore();
    }
  }

  #hatched(u, from, to) {
    const { ctx, bbox } = u, wide = devicePixelRatio, step = 9 * wide;
    const left = Math.max(bbox.left, u.valToPos(from, "x", true)), right = Math.min(bbox.left + bbox.width, u.valToPos(to, "x", true));
    if (right - left < wide) return;
    ctx.save();
    ctx.beginPath();
    ctx.rect(left, bbox.top, right - left, bbox.height);
    ctx.clip();
    ctx.strokeStyle = css("--dim");
    ctx.globalAlpha = 0.55;
    ctx.lineWidth = wide;
    ctx.beginPath();
    // from a fixed origin: the hatching does not scroll with the data
    for (let x = bbox.left - bbox.height; x < bbox.left + bbox.width; x += step) {
      ctx.moveTo(x, bbox.top + bbox.height);
      ctx.lineTo(x + bbox.height, bbox.top);
    }
    ctx.stroke();
    ctx.restore();
  }

  #over(u) {
    const { ctx, bbox } = u;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    ctx.lineWidth = 1.5 * devicePixelRatio;
    for (const [value, colour] of this.parts.lines()) this.#level(u, value, colour);
    for (const t of this.parts.marks()) this.#moment(u, t);
    ctx.setLineDash([]);
    for (const [t, value] of this.parts.dots()) this.#arrow(u, t, value);
    for (const [t, value] of this.parts.rings()) this.#ring(u, t, value);
    ctx.restore();
    this.#beside(u);
  }

  #level(u, value, colour) {
    const { ctx, bbox } = u, y = u.valToPos(value, "y", true);
    ctx.strokeStyle = css(colour);
    ctx.setLineDash([8 * devicePixelRatio, 5 * devicePixelRatio]);
    ctx.beginPath();
    ctx.moveTo(bbox.left, y);
    ctx.lineTo(bbox.left + bbox.width, y);
    ctx.stroke();
  }

  #moment(u, t) {
    const { ctx, bbox } = u, x = u.valToPos(t, "x", true);
    ctx.strokeStyle = css("--accent-2");
    ctx.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio]);
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
  }

  #arrow(u, t, value) {
    const { ctx } = u, wide = devicePixelRatio;
    const x = u.valToPos(t, "x", true), y = u.valToPos(value, "y", true) - 7 * wide;
    ctx.fillStyle = css("--bad");
    ctx.beginPath();
    ctx.moveTo(x, y);
    ctx.lineTo(x - 5 * wide, y - 9 * wide);
    ctx.lineTo(x + 5 * wide, y - 9 * wide);
    ctx.fill();
  }

  #ring(u, t, value) {
    const { ctx } = u, wide = devicePixelRatio;
    ctx.beginPath();
    ctx.arc(u.valToPos(t, "x", true), u.valToPos(value, "y", true), 5 * wide, 0, 2 * Math.PI);
    ctx.fillStyle = css("--accent-2");
    ctx.strokeStyle = css("--card");
    ctx.lineWidth = 1.5 * wide;
    ctx.fill();
    ctx.stroke();
  }

  // in the padding; letters that would touch stand side by side
  #beside(u) {
    const { ctx, bbox } = u, wide = devicePixelRatio, right = bbox.left + bbox.width;
    const ticks = this.parts.ticks().map(([value, letter, colour = "--dim"]) => [u.valToPos(value, "y", true), letter, colour]);
    let line = -Infinity, at = 0;
    ctx.save();
    ctx.lineWidth = 2 * wide;
    ctx.font = `${FONT * wide}px system-ui, sans-serif`;
    ctx.textBaseline = "middle";
    ctx.textAlign = "left";
    for (const [y, letter, colour] of ticks.sort(([a], [b]) => a - b)) {
      ctx.strokeStyle = ctx.fillStyle = css(colour);
      ctx.beginPath();
      ctx.moveTo(right + wide, y);
      ctx.lineTo(right + 8 * wide, y);
      ctx.stroke();
      if (y - line >= FONT * wide) [line, at] = [y, right + 11 * wide];
      ctx.fillText(letter, at, line);
      at += ctx.measureText(letter).width + wide;
    }
    ctx.restore();
  }
}

/** A rolling signal: push points, forget those older than `span` seconds. Where points lie more than `gap` seconds
 * apart the line breaks. */
export class Roll {
  constructor(span, gap = 1) {
    this.span = span;
    this.gap = gap;
    this.clear();
  }

  clear() {
    this.t = [];
    this.v = [];
  }

  push(t, v) {
    const last = this.t[this.t.length - 1];
    if (t - last > this.gap) {
      this.t.push((last + t) / 2);
      this.v.push(null);
    }
    this.t.push(t);
    this.v.push(Number.isFinite(v) ? v : null);
  }

  /** Values of the last `span` seconds. */
  recent() {
    const oldest = this.t[this.t.length - 1] - this.span;
    return this.v.filter((v, i) => v !== null && this.t[i] > oldest);
  }

  trim() {
    const oldest = this.t[this.t.length - 1] - this.span;
    let n = 0;
    while (n < this.t.length && this.t[n] < oldest) n++;
    if (n > 64) {
      this.t.splice(0, n);
      this.v.splice(0, n);
    }
  }
}
