import assert from "node:assert/strict";
import { test } from "node:test";
import { Plot, module, openPage, size } from "./page.js";

process.env.TZ = "UTC";
const { window } = openPage();
const { Chart, Roll, broken } = await module("charts.js");

function chart(options) {
  const host = window.document.createElement("div");
  size(host, 600, 200);
  const made = new Chart(host, { series: [{ colour: "--accent" }], range: [0, 1], ...options });
  return { made, plot: Plot.last, host, x: () => Plot.last.options.scales.x.range() };
}

test("a roll breaks its line where points lie more than the gap apart", () => {
  const roll = new Roll(300, 1);
  for (const [t, v] of [[0, 0.1], [1, 0.2], [14, 0.3]]) roll.push(t, v);
  assert.deepEqual([roll.t, roll.v], [[0, 1, 7.5, 14], [0.1, 0.2, null, 0.3]]);
});

test("a roll keeps no number that is not one", () => {
  const roll = new Roll(300, 9);
  for (const [t, v] of [[0, undefined], [1, null], [2, NaN], [3, Infinity], [4, 0]]) roll.push(t, v);
  assert.deepEqual(roll.v, [null, null, null, null, 0]);
  assert.deepEqual(roll.recent(), [0]);
});

test("a roll forgets what is older than its span, and says only what is in it", () => {
  const roll = new Roll(10, 5);
  for (let t = 0; t <= 200; t++) roll.push(t, t);
  assert.deepEqual(roll.recent(), [191, 192, 193, 194, 195, 196, 197, 198, 199, 200]);
  roll.trim();
  assert.deepEqual([roll.t[0], roll.v[0], roll.t.length], [190, 190, 11]);
  roll.clear();
  assert.deepEqual(roll.recent(), []);
});

test("lines are broken in the middle of each gap, and nowhere else", () => {
  const [t, a, b] = broken([[0, 1, 20, 21, 40], [1, 2, 3, 4, 5], [6, 7, 8, 9, 10]], [[1, 20], [21, 40]]);
  assert.deepEqual(t, [0, 1, 10.5, 20, 21, 30.5, 40]);
  assert.deepEqual(a, [1, 2, null, 3, 4, null, 5]);
  assert.deepEqual(b, [6, 7, null, 8, 9, null, 10]);
  assert.deepEqual(broken([[5, 6], [1, 2]], [[0, 5], [6, 9]]), [[5, 6], [1, 2]]);
  assert.deepEqual(broken([[], []], [[0, 5]]), [[], []]);
});

test("the window fills from the left and then scrolls", () => {
  const { made, x } = chart({ span: 300, start: 60 });
  assert.deepEqual(x(), [0, 60]);
  made.set([[10], [0.5]], 100);
  assert.deepEqual(x(), [0, 100]);
  made.set([[400], [0.5]], 400);
  assert.deepEqual(x(), [100, 400]);
});

test("without a span all data is shown, or what the caller says is all", () => {
  const { made, x } = chart({});
  assert.deepEqual(x(), [0, 1]);
  made.set([[3, 3.2], [0, 0]], 0);
  assert.deepEqual(x(), [3, 4]);
  assert.deepEqual(chart({ whole: () => [-5, 9] }).x(), [-5, 9]);
});

test("times are of the clock where there is one, round on it, and never below zero without", () => {
  const zero = Date.parse("2026-11-27T13:02:07Z") / 1000;
  const axis = (options) => {
    const { plot } = chart(options);
    Object.assign(plot, { valToPos: () => 250 });
    const [{ splits, values }] = plot.options.axes;
    return (low, high, step) => values(plot, splits(plot, 0, low, high, step), 0, 70, step);
  };
  assert.deepEqual(axis({ clock: () => zero })(0, 130, 60), ["13:03", "13:04"]);
  assert.deepEqual(axis({ clock: () => zero })(0, 12, 5), ["13:02:10", "13:02:15"]);
  assert.deepEqual(axis({})(-60, 120, 60), ["", "0:00", "1:00", "2:00"]);
});

test("a time that the chart's edge would cut is left out", () => {
  const { plot } = chart({});
  const [{ values }] = plot.options.axes;
  plot.valToPos = (t) => t; // px from the left of the plot, which lies 50 px from the chart's
  assert.deepEqual(values(plot, [-45, 100, 545], 0, 70, 60), ["", "1:40", ""]);
});

test("the values' axis has the unit, scaled", () => {
  const { plot } = chart({ scale: 100, unit: "%" });
  assert.deepEqual(plot.options.axes[1].values(plot, [0, 0.25, 1 / 3]), ["0%", "25%", "33.33%"]);
});

test("a point between two gaps is drawn as a dot", () => {
  const { plot } = chart({});
  const { filter } = plot.options.series[1].points;
  plot.data = [[], [null, 0.5, null, 0.1, 0.2, null, 0.9]];
  assert.deepEqual(filter(plot, 1), [1, 6]);
  plot.data = [[], [0.1, 0.2]];
  assert.equal(filter(plot, 1), null);
});

test("limits, marks, ratings, reactions and ticks are drawn where they are", () => {
  const { plot } = chart({
    lines: () => [[0.7, "--red"]], marks: () => [2], rings: () => [[3, 0.4]], dots: () => [[1, 0.5]],
    hatch: undefined, ticks: () => [[0.1, "F"], [0.15, "V"], [0.9, "E"]], shade: () => [[1, 2, "--bad"], [9, 8, "--bad"]],
  });
  plot.draw();
  const { ctx } = plot;
  assert.deepEqual(ctx.of("moveTo").slice(0, 3), [[50, 70], [200, 0], [100, 43]]);
  assert.deepEqual(ctx.of("lineTo").slice(0, 2), [[550, 70], [200, 200]]);
  assert.deepEqual(ctx.of("arc"), [[300, 40, 5, 0, 2 * Math.PI]]);
  assert.deepEqual(ctx.of("fillRect"), [[100, 0, 100, 200]]); // a part that ends before it begins is none
  assert.deepEqual(ctx.of("fillText").map(([letter, , y]) => [letter, y]), [["F", 10], ["V", 10], ["E", 90]]); // V beside F, which it would touch
  assert.deepEqual([ctx.of("save").length, ctx.of("restore").length].every((n, _, all) => n === all[0]), true);
});

test("a gap is hatched within the chart, and one too thin for a line is not", () => {
  const { plot } = chart({ hatch: () => [[1, 4], [5, 5.001]] });
  plot.draw();
  assert.deepEqual(plot.ctx.of("rect")[0], [100, 0, 300, 200]);
  assert.equal(plot.ctx.of("clip").length, 2); // the hatching's, and the one of all lines
});

test("a chart takes its host's size, and not that of a hidden one", () => {
  const { made, plot, host } = chart({});
  assert.deepEqual(plot.size, { width: 600, height: 200 });
  size(host, 0, 0);
  made.resize();
  assert.deepEqual(plot.size, { width: 600, height: 200 });
});

test("a chart that takes the place of another leaves nothing of it", () => {
  const host = document.createElement("div"), options = { series: [{ colour: "--accent" }], range: [0, 1] };
  const first = new Chart(host, options), other = new Chart(document.createElement("div"), options);
  new Chart(host, options);
  assert.ok(first.plot.destroyed && first.observer.off);
  assert.ok(!other.plot.destroyed && !Plot.last.destroyed);
});
