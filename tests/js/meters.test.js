import assert from "node:assert/strict";
import { test } from "node:test";
import { module, openPage } from "./page.js";

openPage();
const { meter, setMeter } = await module("meters.js");

test("a meter has its value for a screen reader, and without one is none", () => {
  const cell = meter("quality"), bar = cell.querySelector(".meter");
  const about = () => ["role", "aria-label", "aria-valuemin", "aria-valuemax", "aria-valuenow"].map((name) => bar.getAttribute(name));
  assert.deepEqual(about(), ["img", "quality: no data", null, null, null]);
  assert.equal(cell.textContent, "quality—");
  setMeter(cell, 0.456, "46%");
  assert.deepEqual(about(), ["meter", "quality", "0", "100", "46"]);
  assert.deepEqual([cell.querySelector("i").style.width, cell.querySelector("b").textContent], ["46%", "46%"]);
  setMeter(cell, null, "—");
  assert.deepEqual(about(), ["img", "quality: no data", null, null, null]);
  assert.equal(cell.querySelector("i").style.width, "0%");
});
