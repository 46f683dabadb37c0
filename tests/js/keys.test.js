import assert from "node:assert/strict";
import { test } from "node:test";
import { module } from "./page.js";

const { pressed } = await module("keys.js");

const event = (key, more = {}) => ({ key, target: { closest: () => null }, ...more });

test("digits rate, and t is ten", () => {
  assert.deepEqual(["0", "7", "t"].map((key) => pressed(event(key)).rating), [0, 7, 10]);
});

test("any other key is asked of the page", () => {
  assert.deepEqual(pressed(event("a")), { key: "a" });
  assert.deepEqual(pressed(event("F1")), { key: "F1" });
});

test("the browser's own keys, repeats and typing belong to something else", () => {
  for (const name of ["ctrlKey", "metaKey", "altKey", "repeat"]) assert.equal(pressed(event("7", { [name]: true })), null);
  const inside = (selector) => event("7", { target: { closest: (asked) => (asked.split(", ").includes(selector) ? {} : null) } });
  for (const selector of ["input", "textarea", "dialog"]) assert.equal(pressed(inside(selector)), null);
});

test("where the cards are covered only keys act that need none of them", () => {
  assert.deepEqual(["a", "p", "s", "d", "?", "Escape"].map((key) => pressed(event(key), true)?.key), ["a", "p", "s", "d", "?", "Escape"]);
  assert.deepEqual(["7", "t", "r", "m", "f", "x"].map((key) => pressed(event(key), true)), Array(6).fill(null));
});

test("a list keeps the letters of its options, and alarms are acknowledged all the same", () => {
  const list = { options: [{ text: "English" }, { text: "Deutsch" }, { text: "5 min" }] };
  const within = (key) => pressed(event(key, { target: { closest: (asked) => (asked === "select" ? list : null) } }));
  assert.deepEqual(["a", "p", "s", "?"].map((key) => within(key)?.key), ["a", "p", "s", "?"]);
  assert.deepEqual(["d", "D", "e", "5", "7", "r"].map(within), Array(6).fill(null));
});

test("alarms are acknowledged from within a dialog and from a slider, while letters are typed they are letters", () => {
  const inside = (...there) => (key) => pressed(event(key, { target: { closest: (asked) => (asked.split(", ").some((part) => there.includes(part)) ? {} : null) } }));
  for (const within of [inside("dialog"), inside("input")]) {
    assert.deepEqual(["a", "p", "s"].map((key) => within(key)?.key), ["a", "p", "s"]);
    assert.deepEqual(["7", "t", "r", "v"].map(within), [null, null, null, null]);
  }
  assert.equal(inside("dialog", "input", "input:not([type=range]):not([type=checkbox])")("a"), null);
});
