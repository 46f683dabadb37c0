import assert from "node:assert/strict";
import { test } from "node:test";
import { module } from "./page.js";

const { percent } = await module("text.js");
const { NONE, brief, conductance, cutOff, highAndMean, latencyWords, limitWords, notLive, over, recentScrs, stalled } = await module("values.js");

const LIVE = { run: { realtime: true }, state: { stale: false, ended: false }, live: true, linked: "live" };

test("a value is cut off by the gravest reason, in this order", () => {
  assert.equal(cutOff(LIVE), "");
  assert.equal(cutOff({ ...LIVE, state: { stale: true, age: 2.6 } }), "no results for 3 s");
  assert.equal(cutOff({ ...LIVE, run: { replay: "night-3" }, state: { stale: true, age: 2 } }), "nothing in the recording for 2 s");
  assert.equal(cutOff({ ...LIVE, live: false, linked: "stale", state: { stale: true, age: 9 } }), "no connection");
  assert.equal(cutOff({ ...LIVE, live: false, linked: "ended" }), "the run has ended");
  assert.equal(cutOff({ ...LIVE, state: { ended: true, failed: "no space" } }), "the run has failed");
  assert.equal(cutOff({ run: null, state: null, live: true, linked: "live" }), "");
});

test("without a result the page waits for the first one, unless nothing can come", () => {
  assert.equal(stalled(LIVE, null), "waiting for the first result");
  assert.equal(stalled(LIVE, {}), "");
  assert.equal(stalled({ ...LIVE, live: false }, null), "no connection");
});

test("only a run from another time is labelled", () => {
  assert.deepEqual([null, { realtime: true }, { replay: "night-3" }, {}].map(notLive), ["", "", "Replay", "Not live"]);
});

test("the limit is said where there are alarms, and why where there are none", () => {
  const settings = { enabled: true, limit: 0.7, delay: 5 };
  assert.equal(limitWords({ realtime: true }, settings), "alarm from 70% for 5 s");
  assert.equal(limitWords({ realtime: true }, { ...settings, enabled: false }), "alarm off");
  assert.equal(limitWords({ realtime: true }, undefined), "");
  assert.equal(limitWords({ realtime: true, alarms_off: "demo weights" }, settings), "alarms off: demo weights");
  assert.equal(limitWords({ realtime: false }, settings), "no alarms");
});

test("a number is red only where it alarms: at the limit, live, with alarms on", () => {
  const settings = { enabled: true, limit: 0.7 };
  assert.equal(over({ realtime: true }, settings, 0.7), true);
  assert.equal(over({ realtime: true }, settings, 0.699), false);
  assert.equal(over({ realtime: false }, settings, 0.9), false);
  assert.equal(over({ realtime: true, alarms_off: "demo" }, settings, 0.9), false);
  assert.equal(over({ realtime: true }, { ...settings, enabled: false }, 0.9), false);
  assert.equal(over({ realtime: true }, undefined, 0.9), false);
});

test("numbers are rounded as they are read", () => {
  assert.deepEqual([0, 0.004, 0.005, 0.999].map(percent), ["0%", "0%", "1%", "100%"]);
  assert.deepEqual([null, 0.456, 9.999, 10, 23.46].map(conductance), [NONE, "0.46", "10.00", "10.0", "23.5"]);
  assert.deepEqual(highAndMean([]), [NONE, NONE]);
  assert.deepEqual(highAndMean([0.2, 0.9, 0.1]), ["90%", "40%"]);
  assert.deepEqual(latencyWords(null), [NONE, NONE]);
  assert.deepEqual(latencyWords([14.4, 20.6]), ["14 ms", "21 ms"]);
});

test("the highest of a long history is found (an argument list would overflow)", () => {
  assert.equal(highAndMean(new Array(300_000).fill(0.5))[0], "50%");
});

test("reactions count for a minute after their peak", () => {
  assert.equal(recentScrs([[10, 12], [39, 40], [40, 40.1], [99, 100]], 100), 2);
});

test("a card's reason is short, and any other is kept whole", () => {
  assert.equal(brief("no usable modality: face: dark; eda: lost"), "no usable modality, see Signals");
  assert.equal(brief("no results for 3 s"), "no results for 3 s");
});
