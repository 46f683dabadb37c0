import assert from "node:assert/strict";
import { test } from "node:test";
import { module, openPage } from "./page.js";

openPage();
const { agreementWords, askWords, waitingWords } = await module("ratings.js");
const { factsOf, unlabelled, whenWords } = await module("events.js");
const { markWords } = await module("values.js");
const at = (t) => `13:02:${String(t).padStart(2, "0")}`;

const found = {
  ratings: 9, n: 9, rho: 0.6234, interval: [0.1, 0.876], reason: "", severe: 9, seen: 7, severe_from: 7, enough: true, least: 5,
};

test("the agreement is a line: how many, how strong, how sure, what was seen", () => {
  assert.equal(agreementWords(found), "n = 9 · Spearman 0.62 (0.10 to 0.88) · 7 of 9 ratings ≥ 7 seen");
  assert.equal(agreementWords({ ...found, interval: null }), "n = 9 · Spearman 0.62 (no interval) · 7 of 9 ratings ≥ 7 seen");
  assert.equal(agreementWords({ ...found, severe: 1, seen: 0 }), "n = 9 · Spearman 0.62 (0.10 to 0.88) · 0 of 1 rating ≥ 7 seen");
});

test("no number stands where there is none, and the reason does", () => {
  const few = { ...found, n: 3, rho: null, interval: null, enough: false, severe: 0 };
  assert.equal(agreementWords(few), "too few ratings for a correlation (3 of 5)");
  assert.equal(agreementWords({ ...few, n: 6, enough: true, reason: "all ratings are equal" }), "n = 6 · no correlation: all ratings are equal");
  assert.equal(agreementWords({ ...found, seen: null }), "n = 9 · Spearman 0.62 (0.10 to 0.88)", "the threshold is not known");
  assert.equal(agreementWords({ ...found, ratings: 0, n: 0 }), "No ratings yet");
  assert.equal(agreementWords(null), "");
});

test("a rating that waits says what becomes of it, and when", () => {
  assert.equal(waitingWords({ rating: 0 }, 4.2), "0 noted in 5 s");
  assert.equal(waitingWords({ rating: 7, shownOnly: true }, 1), "7 noted in 1 s, not saved");
  assert.equal(waitingWords({ rating: 4, corrects: 83.1 }, 0.3), "Changed to 4 in 1 s");
  assert.equal(waitingWords({ rating: null, corrects: 83.1 }, 0), "Rating withdrawn in 0 s");
});

test("a question says why it is asked", () => {
  assert.equal(askWords({ why: "alarm", since: 10 }, at), "Rate the pain: the alarm ended at 13:02:10");
  assert.equal(askWords({ why: "time", minutes: 30 }, at), "Rate the pain: every 30 min");
});

test("a mark is its rating and note, or what became of an earlier rating", () => {
  assert.equal(markWords({ rating: 0, text: "" }, at), "rating 0");
  assert.equal(markWords({ rating: 7, text: "turned", corrects: null }, at), "rating 7: turned");
  assert.equal(markWords({ rating: 0, text: "", corrects: 9 }, at), "rating of 13:02:09 changed to 0");
  assert.equal(markWords({ rating: null, text: "", corrects: 9 }, at), "rating of 13:02:09 withdrawn");
});

test("an event says when it was, how high, and who saw it", () => {
  const event = { start: 10, end: 50, peak: 0.954, limit: 0.7, acknowledged: 20, by: "10.0.0.7" };
  assert.equal(whenWords(event, at), "13:02:10 to 13:02:50");
  assert.equal(whenWords({ ...event, end: null }, at), "13:02:10 to now");
  assert.equal(whenWords({ ...event, end: 10 }, at), "at 13:02:10");
  assert.equal(factsOf(event, at), "peak 95%, threshold 70%, acknowledged 13:02:20 by 10.0.0.7");
  assert.equal(factsOf({ ...event, peak: null, limit: null, acknowledged: null }, at), "not acknowledged");
});

test("a label that would be lost is not taken, and the reason is said", () => {
  const live = { realtime: true };
  assert.equal(unlabelled({ run: live, state: { recording: { on: true } } }), "");
  assert.match(unlabelled({ run: live, state: { recording: { on: false } } }), /recording is off/);
  assert.match(unlabelled({ run: { realtime: false }, state: { recording: { on: true } } }), /not live/);
});
