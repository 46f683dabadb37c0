import assert from "node:assert/strict";
import { test } from "node:test";
import { module } from "./page.js";

const { levelShare, meterPercent, verdictOf } = await module("signals.js");

test("a lost signal says why, the detail apart", () => {
  assert.deepEqual(verdictOf({ ok: true }, "no sound, microphone 'USB'"), { ok: false, said: "— no sound", more: ", microphone 'USB'" });
  assert.deepEqual(verdictOf(null, "no connection"), { ok: false, said: "— no connection", more: "" });
});

test("a good one says whose face it is, a bad one its reason", () => {
  assert.equal(verdictOf({ ok: true, track: 1, turn: 0 }, "").said, "good");
  assert.equal(verdictOf({ ok: true, track: 2, turn: 90 }, "").said, "good, person 2, turned by 90°");
  assert.deepEqual(verdictOf({ ok: false, reason: "too dark" }, ""), { ok: false, said: "too dark", more: "" });
  assert.deepEqual(verdictOf(undefined, ""), { ok: false, said: "—", more: "" });
});

test("a meter stays within its ends", () => {
  assert.deepEqual([null, -0.2, 0, 0.456, 1, 7].map(meterPercent), [0, 0, 0, 46, 100, 100]);
});

test("the meter of the level goes from -90 to 0 dBFS", () => {
  assert.deepEqual([-90, -45, 0].map(levelShare), [0, 0.5, 1]);
  assert.equal(levelShare(null), null);
});
