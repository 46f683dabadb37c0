import assert from "node:assert/strict";
import { test } from "node:test";
import "./page.js";

const { ago, alarmsOf, gravest, sentence, signalsOf } = await import("../../jmt_edge/beds/static/tiles.js");

const BED = { name: "bed-1", own: [], alarms: [], signals: true, lost: "", state: "live", reason: "", alarms_off: "", quality: {} };
const alarm = (priority, state = "active", text = priority) => ({ id: text, priority, state, text });

test("the gravest alarm of a bed is first; of equals the one that signals", () => {
  const bed = { ...BED, alarms: [alarm("low"), alarm("high", "acknowledged", "seen"), alarm("high", "latched", "over"), alarm("medium")] };
  assert.deepEqual(alarmsOf(bed).map(({ text }) => text), ["over", "seen", "medium", "low"]);
});

test("a lost bed is a medium alarm of the station, with its reason", () => {
  const bed = { ...BED, own: ["lost"], lost: "not heard for 12 s", alarms: [alarm("low")] };
  const [first] = alarmsOf(bed);
  assert.deepEqual([first.priority, first.text, first.detail], ["medium", "Bed lost", "not heard for 12 s"]);
  assert.equal(sentence(bed, first), "Bed lost: not heard for 12 s");
  assert.equal(alarmsOf({ ...BED, own: ["twice"] })[0].text, "Two units send under this name");
});

test("the banner has one line for each bed, and the broker's; those that signal first", () => {
  const beds = [
    { ...BED, name: "a", alarms: [alarm("high", "acknowledged")] },
    { ...BED, name: "b", alarms: [alarm("low"), alarm("low", "active", "second")] },
    { ...BED, name: "c" },
  ];
  const found = gravest({ beds, alarms: [{ id: "broker", priority: "medium", text: "No broker", state: "active" }, alarm("high")] });
  assert.deepEqual(found.map(({ bed, text }) => [bed, text]), [["", "No broker"], ["b", "low"], ["a", "high"]]);
});

test("without an alarm a tile says why it has no value, or that alarms are off", () => {
  assert.equal(sentence({ ...BED, state: "ended" }), "The run has ended");
  assert.equal(sentence({ ...BED, state: "starting" }), "no result yet");
  assert.equal(sentence({ ...BED, reason: "no usable modality" }), "no usable modality");
  assert.equal(sentence({ ...BED, alarms_off: "demo weights" }), "alarms off: demo weights");
  assert.equal(sentence(BED), "");
});

test("signals are named as on the bedside", () => {
  const quality = { eda: { ok: false, reason: "no contact" }, face: { ok: true, reason: "" }, gaze: { ok: true } };
  assert.deepEqual(signalsOf({ quality }), [
    { name: "EDA", ok: false, why: "no contact" }, { name: "face", ok: true, why: "usable" }, { name: "gaze", ok: true, why: "usable" },
  ]);
});

test("how long ago is said in the largest unit", () => {
  assert.deepEqual([null, 0.4, 59.4, 60, 3599, 3600, 7300].map(ago), ["never heard", "0 s ago", "59 s ago", "1 min ago", "59 min ago", "1 h ago", "2 h ago"]);
});
