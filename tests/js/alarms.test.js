import assert from "node:assert/strict";
import { test } from "node:test";
import { module } from "./page.js";

process.env.TZ = "UTC";
const { alarmNotes, calm, sentence, soundOfLoss, unjudged } = await module("alarms.js");

const at = (time) => Date.parse(`2026-11-27T${time}Z`) / 1000;
const alarm = { text: "Pain ≥ 70%", from: at("13:02:05"), to: null, times: 1, peak: null, kind: "physiological", priority: "high", state: "active" };

test("an alarm that lasts says since when; its value is in its card alone", () => {
  assert.equal(sentence({ ...alarm, peak: 0.95 }), "Pain ≥ 70% since 13:02");
});

test("one that is over says from when to when, how often and how high", () => {
  assert.equal(sentence({ ...alarm, to: at("13:03:40"), times: 3, peak: 0.951 }), "Pain ≥ 70% from 13:02 to 13:03, 3 times, peak 95%");
});

test("within one minute the times have seconds", () => {
  assert.equal(sentence({ ...alarm, to: at("13:02:59") }), "Pain ≥ 70% from 13:02:05 to 13:02:59");
});

test("an alarm of less than a second was at one time", () => {
  assert.equal(sentence({ ...alarm, to: at("13:02:05") + 0.4 }), "Pain ≥ 70% at 13:02:05");
});

test("kind and priority are said of the first alarm, its state of each", () => {
  assert.equal(alarmNotes(alarm, true), "person · high priority");
  assert.equal(alarmNotes({ ...alarm, state: "latched" }, false), "over, not acknowledged");
  assert.equal(alarmNotes({ ...alarm, kind: "technical", state: "acknowledged", no_data: true }, true), "equipment · high priority · acknowledged · no data now");
});

test("it is never said that nothing alarms while nothing is judged", () => {
  const judged = { run: { realtime: true }, state: {}, live: true, linked: "live" };
  assert.equal(unjudged(judged), "");
  assert.equal(unjudged({ ...judged, state: null }), "Alarms unknown: connecting");
  assert.equal(unjudged({ ...judged, live: false, linked: "lost" }), "Alarms unknown: no connection");
  assert.equal(unjudged({ ...judged, run: null, live: false }), "No connection");
  assert.equal(unjudged({ ...judged, state: { failed: "no space" } }), "Alarms unknown: the run has failed");
  assert.equal(unjudged({ ...judged, state: { ended: true } }), "The run has ended: no alarms");
  assert.equal(unjudged({ ...judged, run: { replay: "night-3" } }), "REPLAY of night-3: not live, no alarms");
  assert.equal(unjudged({ ...judged, run: {} }), "NOT LIVE: files at full speed, no alarms");
});

test("demo weights are named where nothing alarms", () => {
  assert.equal(calm(null), "No alarms");
  assert.equal(calm({ outputs: ["pain"] }), "No alarms");
  assert.equal(calm({ demo: true, outputs: ["pain"] }), "DEMO: no alarms");
  assert.equal(calm({ demo: true, alarms_off: "real sensors", outputs: ["pain"] }), "DEMO: pain alarms off: real sensors");
  assert.equal(calm({ demo: true, alarms_off: "real sensors", outputs: ["valence"] }), "DEMO: no alarms");
});

test("losing a live run sounds; the end of a run and a replay do not", () => {
  const live = { realtime: true };
  assert.deepEqual(["stale", "lost", "ended", "waiting", "refused"].map((linked) => soundOfLoss(linked, live)), ["high", "high", "", "", ""]);
  assert.equal(soundOfLoss("lost", { replay: "night-3" }), "");
  assert.equal(soundOfLoss("lost", null), "");
});
