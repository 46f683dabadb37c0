import assert from "node:assert/strict";
import { beforeEach, mock, test } from "node:test";
import { Plot, module, openPage, settled, size } from "./page.js";

const { window, asked, answers } = openPage();
const { $ } = await module("dom.js");
const { Span, Trend } = await module("trend.js");

const T0 = 1_790_000_000;
const answer = () => ({
  from: T0, to: T0 + 40, bin: 10, outputs: ["pain"],
  rows: [[T0, 0.2, 0.1, 0.3], [T0 + 10, 0.5, 0.4, 0.6], [T0 + 30, 0.7, 0.6, 0.9]],
  gaps: [[T0 + 15, T0 + 35]], ratings: [[T0 + 12, 7]],
});

beforeEach(() => {
  mock.timers.reset();
  mock.timers.enable({ apis: ["setTimeout", "Date"], now: 1000 * (T0 + 40) });
  asked.length = 0;
  for (const path of ["/api/v1/trend", "/api/v1/trend?seconds=3600"]) answers[path] = answer();
});

const PAIN = { outputs: { pain: "--accent" }, range: [0, 1], rated: true };
const AFFECT = { outputs: { valence: "--accent", arousal: "--accent-2" }, range: [-1, 1] };

function open(clock = true, options = PAIN) {
  const trend = new Trend(window.document.createElement("div"), { ...options, clock: () => clock });
  return { trend, plot: Plot.last };
}

test("bins are drawn in their middle: low, high, mean, with a break in each gap", async () => {
  const { trend, plot } = open();
  await trend.show(3600);
  const [t, low, high, mean] = plot.data;
  assert.deepEqual(t.map((at) => at - T0), [5, 15, 25, 35]);
  assert.deepEqual([low, high, mean], [[0.2, 0.5, null, 0.7], [0.3, 0.6, null, 0.9], [0.1, 0.4, null, 0.6]]);
});

test("it is asked for again as often as a bin is filled, and not while nothing is shown", async () => {
  const { trend } = open();
  await trend.show(3600);
  mock.timers.tick(9999);
  assert.equal(asked.length, 1);
  mock.timers.tick(1);
  await settled();
  assert.equal(asked.length, 2);
  await trend.show(0);
  mock.timers.tick(100_000);
  await settled();
  assert.deepEqual(asked.map(([path]) => path), ["/api/v1/trend?seconds=3600", "/api/v1/trend?seconds=3600"]);
});

test("an answer to a choice that has been changed is not drawn", async () => {
  const { trend, plot } = open();
  answers["/api/v1/trend?seconds=3600"] = { ...answer(), rows: [[T0, 0.9, 0.9, 0.9]] };
  const first = trend.show(3600), second = trend.show(null);
  await Promise.all([first, second]);
  assert.equal(plot.data[1][0], 0.2);
  mock.timers.tick(10_000);
  await settled();
  assert.deepEqual(asked.map(([path]) => path).slice(2), ["/api/v1/trend"]); // one of them asks again
});

test("without an answer the time since the last one is a gap that grows", async () => {
  const { trend, plot } = open();
  await trend.show(3600);
  answers["/api/v1/trend?seconds=3600"] = new TypeError("no route");
  mock.timers.tick(10_000);
  await settled();
  assert.deepEqual(plot.options.scales.x.range(), [T0 + 50 - 3600, T0 + 50]);
  mock.timers.tick(10_000);
  await settled();
  assert.deepEqual(trend.data.gaps, [[T0 + 15, T0 + 35], [T0 + 40, T0 + 60]]);
});

test("in a replay, whose times are no clock's, nothing is added", async () => {
  const { trend } = open(false);
  await trend.show(null);
  answers["/api/v1/trend"] = new TypeError("no route");
  mock.timers.tick(10_000);
  await settled();
  assert.deepEqual(trend.data.gaps, [[T0 + 15, T0 + 35]]);
});

test("ratings have an axis of their own where there are any", async () => {
  const { trend, plot } = open();
  await trend.show(3600);
  plot.draw();
  assert.deepEqual(plot.ctx.of("fillText").map(([words]) => words), ["0", "5", "10"]);
  assert.equal(plot.ctx.of("arc").length, 1);
  answers["/api/v1/trend?seconds=3600"] = { ...answer(), ratings: [] };
  await trend.show(3600);
  plot.ctx.calls.length = 0;
  plot.draw();
  assert.deepEqual(plot.ctx.of("fillText"), []);
});

test("another run begins empty", async () => {
  const { trend, plot } = open();
  await trend.show(3600);
  trend.clear();
  assert.deepEqual(plot.data, [[], [], [], []]);
  assert.deepEqual(plot.options.scales.x.range(), [0, 60]);
});

test("two outputs have a band and a line each, and their letters where their newest means are", async () => {
  const rows = [[T0, 0.1, 0.05, 0.2, -0.3, -0.4, -0.2], [T0 + 30, 0.5, 0.4, 0.6, 0.25, 0.2, 0.3]];
  answers["/api/v1/trend"] = { ...answer(), outputs: ["arousal", "valence"], rows, gaps: [], ratings: [[T0, 7]] };
  const { trend, plot } = open(true, AFFECT);
  await trend.show(null);
  assert.deepEqual(plot.data, [[T0 + 5, T0 + 35], [-0.3, 0.25], [-0.2, 0.3], [-0.4, 0.2], [0.1, 0.5], [0.2, 0.6], [0.05, 0.4]]);
  assert.deepEqual(plot.options.bands.map(({ series }) => series), [[2, 1], [5, 4]]);
  plot.draw();
  assert.deepEqual(plot.ctx.of("fillText").map(([letter, , y]) => [letter, y]), [["V", 20], ["A", 40]]);
  assert.deepEqual(plot.ctx.of("arc"), []); // a rating of pain is none of affect
  answers["/api/v1/trend"].to = T0 + 100;
  await trend.show(null);
  plot.ctx.calls.length = 0;
  plot.draw();
  assert.deepEqual(plot.ctx.of("fillText"), []); // the newest value is not of now
});

test("what the list says is shown, kept, and taken up by the next page", async () => {
  const { trend } = open();
  size(trend.host, 600, 200);
  const hours = [], options = { key: "jmt-edge-span", has: () => true, shown: (on) => hours.push(on) };
  const span = new Span("pain", trend, options);
  span.apply();
  assert.deepEqual([trend.host.hidden, trend.seconds, hours.at(-1)], [true, 0, false]);
  $("pain-span").value = "3600";
  span.select.onchange();
  assert.deepEqual([trend.host.hidden, trend.seconds, hours.at(-1)], [false, 3600, true]);
  $("pain-span").value = "all";
  span.select.onchange();
  assert.equal(trend.seconds, null);
  assert.equal(window.localStorage.getItem("jmt-edge-span"), "all");
  $("pain-span").value = "live";
  assert.equal(new Span("pain", trend, options).select.value, "all");
  new Span("pain", trend, { ...options, has: () => false }).apply(); // a run without the output
  assert.deepEqual([trend.host.hidden, hours.at(-1)], [true, false]);
});

test("an answer that comes after nothing is shown any more asks for no other", async () => {
  const agreed = [], { trend } = open(true, { ...PAIN, drawn: (data) => agreed.push(data) });
  const coming = trend.show(3600);
  trend.show(0);
  await coming;
  await settled();
  mock.timers.tick(60_000);
  await settled();
  assert.deepEqual([asked.length, trend.seconds, agreed], [1, 0, []]);
});
