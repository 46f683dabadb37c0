import assert from "node:assert/strict";
import { test } from "node:test";
import { module, openPage } from "./page.js";

process.env.TZ = "UTC";
openPage();
const { $, make, minutesSeconds, say } = await module("dom.js"), { clockTime } = await module("text.js");

test("a text is written only where it differs, so that it is read out once", () => {
  let written = 0;
  const node = { get textContent() { return "same"; }, set textContent(_) { written++; } };
  say(node, "same");
  assert.equal(written, 0);
  say(node, "other");
  assert.equal(written, 1);
});

test("an element is made with its attributes, and texts are never markup", () => {
  const node = make("button", { type: "button", "aria-label": "Pain rating 3" }, 3, make("b", {}, "<i>"));
  assert.equal(node.outerHTML, '<button type="button" aria-label="Pain rating 3">3<b>&lt;i&gt;</b></button>');
  $("marks").append(node);
  assert.equal($("marks").textContent, "3<i>");
});

test("times", () => {
  assert.deepEqual([0, 65.9, 3600].map(minutesSeconds), ["0:00", "1:05", "60:00"]);
  const at = Date.parse("2026-11-27T23:02:59.9Z") / 1000;
  assert.deepEqual([clockTime(at, true), clockTime(at, false)], ["23:02:59", "23:02"]);
  assert.equal(clockTime(Date.parse("2026-11-27T00:00:07Z") / 1000, true), "00:00:07");
});
