// The pain probability over hours: a line for the mean of each bin, a band from its lowest to its highest value.

import { Chart, broken } from "./charts.js";
import { ask } from "./link.js";

const RATINGS = [[0, "0"], [0.5, "5"], [1, "10"]]; // the axis on the right

/** The chart in `host`. lines: as a Chart's; clock: () => whether times are a clock's; drawn: called with the server's
 * answer that is shown, null where there is no new one. */
export class Trend {
  constructor(host, { lines, clock, drawn = () => {} }) {
    this.host = host;
    this.drawn = drawn;
    this.clock = clock;
    this.seconds = 0; // shown: s, null for all, 0 for nothing
    this.data = null;
    this.chart = new Chart(host, {
      series: [{ colour: "--accent", thin: true }, { colour: "--accent", thin: true }, { colour: "--accent" }],
      range: [0, 1], scale: 100, unit: "%", band: true, right: 34, lines,
      whole: () => (this.data?.rows ? [this.data.from, Math.max(this.data.to, this.data.from + 60)] : [0, 60]),
      hatch: () => this.data?.gaps ?? [],
      rings: () => (this.data?.ratings ?? []).map(([t, rating]) => [t, rating / 10]),
      ticks: () => (this.data?.ratings?.length ? RATINGS : []),
      clock: () => (clock() ? 0 : null),
    });
  }

  /** Show the last `seconds` (null: all), or nothing (0); asked for again as often as a bin is filled. */
  async show(seconds) {
    this.seconds = seconds;
    clearTimeout(this.timer);
    if (seconds === 0) return;
    const asked = (this.asked = Symbol("trend"));
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

  /** Forget what is shown: another run has begun. */
  clear() {
    this.data = null;
    this.chart.set([[], [], [], []], 0);
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

  #draw() {
    const { rows = [], gaps = [], outputs = [], bin } = this.data, at = 1 + 3 * outputs.indexOf("pain");
    const column = (i) => rows.map((row) => row[i]);
    const t = column(0).map((start) => start + bin / 2);
    this.chart.set(broken([t, column(at), column(at + 2), column(at + 1)], gaps), 0);
  }
}
