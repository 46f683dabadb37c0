import assert from "node:assert/strict";
import { test } from "node:test";
import { module, openPage } from "./page.js";

openPage();
const { recordingNote, restLines, stageOf } = await module("session.js");

const nothing = { off: "", mine: false, lasts: false, left: null, kept: [], refused: {}, older: null };
const dark = ["face", "Turn on a light", "too dark"];

test("what becomes of a recording", () => {
  assert.match(recordingNote(undefined, true), /needs a run started with --record/);
  assert.match(recordingNote({ available: false, on: false }, true), /needs a run started with --record/);
  assert.equal(recordingNote({ available: true, on: false }, true), "Recording starts with the session.");
  assert.match(recordingNote({ available: true, on: true }, true), /ends then, and a recording of this session begins/);
  assert.match(recordingNote({ available: true, on: true }, false), /ends when the session begins/);
  assert.equal(recordingNote({ available: true, on: false }, false), "Nothing is recorded.");
});

test("a rest is left, done, refused, or not there", () => {
  assert.equal(stageOf(nothing), "");
  assert.equal(stageOf({ ...nothing, mine: true, lasts: true, left: 80 }), "left");
  assert.equal(stageOf({ ...nothing, mine: true, kept: ["eda"] }), "done");
  assert.equal(stageOf({ ...nothing, mine: true, refused: { eda: "lifted" } }), "refused");
  assert.equal(stageOf({ ...nothing, mine: true, off: "no results for 3 s" }), "", "nothing is known of it");
});

test("while nothing is known, only the reason is shown", () => {
  assert.deepEqual(restLines({ ...nothing, off: "no results for 3 s", older: { left: 5 } }, [dark], true), ["— no results for 3 s"]);
});

test("before and during a rest, what cannot be used is named with what to do", () => {
  assert.deepEqual(restLines(nothing, [dark, ["eda", "", "no contact"]], false), [
    "Face cannot be used now: Turn on a light", "EDA cannot be used now: no contact",
  ]);
  assert.deepEqual(restLines({ ...nothing, mine: true, lasts: true }, [dark], true), ["Face cannot be used now: Turn on a light"]);
  assert.deepEqual(restLines(nothing, [dark], true).at(-1), "No rest can begin: no signal can be used.");
});

test("after it, what was measured and what was not; faults of now no longer count", () => {
  const over = { ...nothing, mine: true, kept: ["face", "eda"], refused: { voice: "silent" } };
  assert.deepEqual(restLines(over, [dark], false), ["Measured: Face, EDA.", "Voice has no rest: silent."]);
});

test("the rest of somebody before is not used, and is said", () => {
  assert.match(restLines({ ...nothing, older: { kept: ["eda"], refused: {} } }, [], false)[0], /not used: it may be another person's/);
  assert.equal(restLines({ ...nothing, older: { left: 12 } }, [], false)[0], "A rest is being measured already.");
});
