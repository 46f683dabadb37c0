// Outputs over hours: of each a line for the mean of each bin, and a band from its lowest to its highest value.

import { Chart, broken } from "./charts.js";
import { $ } from "./dom.js";
import { ask } from "./link.js";
import { OUTPUTS } from "./uncertainty.js";

const RATINGS = [[0, "0"], [0.5, "5"], [1, "10"]]; // the axis on the right

/** The chart of `outputs` ({name: colour}) in `host`, on one axis of time. range, scale, unit, lines: as a Chart's;
 * rated: with the pain ratings, else with each output's letter beside its newest value; clock: () => whether times are
 * a clock's; drawn: called with the server's answer that is shown, null where there is no new one. */
export class Trend {
  constructor(host, { outputs, range, scale, unit, lines, rated = false, clock, drawn = () => {} }) {
    this.host = host;
    this.outputs = outputs;
    this.drawn = drawn;
    this.clock = clock;
    this.seconds = 0; // shown: s, null for all, 0 for nothing
    this.data = null;
    const edge = (colour) => ({ colour, thin: true });
    this.chart = new Chart(host, {
      series: Object.values(outputs).flatMap((colour) => [edge(colour), edge(colour), { colour }]),
      range, scale, unit, band: true, right: 34, lines,
      whole: () => (this.data?.rows ? [this.data.from, Math.max(this.data.to, this.data.from + 60)] : [0, 60]),
      hatch: () => this.data?.gaps ?? [],
      rings: () => (rated ? (this.data?.ratings ?? []) : []).map(([t, rating]) => [t, rating / 10]),
      ticks: () => (!rated ? this.#newest() : this.data?.ratings?.length ? RATINGS : []),
      clock: () => (clock() ? 0 : null),
    });
  }

  /** Show the last `seconds` (null: all), or nothing (0); asked for again as often as a bin is filled. */
  async show(seconds) {
    this.seconds = seconds;
    clearTimeout(this.timer);
    const asked = (this.asked = Symbol("trend")); // an answer that is still to come is not wanted any more
    if (seconds === 0) {
      this.clear();
      return;
    }
    try {
      const answer = await ask(`/api/v1/trend${seconds === null ? "" : `?seconds=${seconds}`}`);
      const data = await answer.json();
      if (this.asked !== asked) return; // something else was chosen meanwhile
      this.data = data;
      this.answered = Date.now();
      this.#draw();
      this.drawn(data);
    } catch {
      if (this.asked !== asked) return;
      this.drawn(null);
      this.#missed();
    }
    if (this.asked === asked) this.timer = setTimeout(() => this.show(seconds), 1000 * Math.max(4, this.data?.bin ?? 4));
  }

  /** Forget what is shown: another run has begun, or nothing is to be shown. */
  clear() {
    this.data = null;
    this.chart.set([[], ...Object.keys(this.outputs).flatMap(() => [[], [], []])], 0);
  }

  resize() {
    this.chart.resize();
  }

  redraw() {
    this.chart.redraw();
  }

  /** No answer: what came since the last one is not known. By the server's clock: this device's may be another. */
  #missed() {
    if (!this.data?.rows || !this.clock()) return;
    const begin = (this.data.lost ??= this.data.to), gone = (Date.now() - this.answered) / 1000;
    this.data.to = begin + gone;
    if (this.seconds !== null) this.data.from = this.data.to - this.seconds;
    this.data.gaps = [...this.data.gaps.filter(([from]) => from !== begin), [begin, this.data.to]];
    this.#draw();
  }

  /** The column of an output's lowest value in a row. */
  #column(name) {
    return 1 + 3 * this.data.outputs.indexOf(name);
  }

  /** [[newest mean, letter, colour]]; none where the newest value is not of now. */
  #newest() {
    const last = this.data?.rows?.[this.data.rows.length - 1];
    if (!last || this.data.to - last[0] > 2 * this.data.bin) return [];
    return Object.entries(this.outputs).map(([name, colour]) => [last[this.#column(name) + 1], OUTPUTS[name][0].toUpperCase(), colour]);
  }

  #draw() {
    const { rows = [], gaps = [], bin } = this.data, column = (i) => rows.map((row) => row[i]);
    if (!this.data.outputs) return; // the run has not begun
    const each = Object.keys(this.outputs).map((name) => this.#column(name)).flatMap((at) => [column(at), column(at + 2), column(at + 1)]);
    this.chart.set(broken([column(0).map((start) => start + bin / 2), ...each], gaps), 0);
  }
}

/** The list `NAME-span` above a trend: "live" shows what the card has besides, the others hours. The choice is kept.
 * has: () => whether the run has the outputs; shown: (hours) => called after a change. */
export class Span {
  constructor(name, trend, { key, has, shown }) {
    this.select = $(`${name}-span`);
    this.trend = trend;
    this.has = has;
    this.shown = shown;
    const kept = localStorage.getItem(key);
    if ([...this.select.options].some((option) => option.value === kept)) this.select.value = kept;
    this.select.onchange = () => {
      localStorage.setItem(key, this.select.value);
      this.apply();
    };
  }

  /** Show what is chosen. */
  apply() {
    const { value } = this.select, hours = value !== "live" && this.has();
    this.trend.host.hidden = !hours;
    this.shown(hours);
    this.trend.show(!hours ? 0 : value === "all" ? null : +value);
    if (hours) this.trend.resize();
  }
}
