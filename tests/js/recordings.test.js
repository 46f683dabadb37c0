import assert from "node:assert/strict";
import { beforeEach, mock, test } from "node:test";
import { Plot, module, openPage, settled, size } from "./page.js";

const { asked, answers } = openPage();
mock.timers.enable({ apis: ["setInterval"] });
const { $ } = await module("dom.js");
const { Recordings } = await module("recordings.js");

const result = (t, pain, more = {}) => ({
  t, outputs: pain === null ? null : { pain }, reason: pain === null ? "no usable modality" : "", used: ["face", "eda"],
  attention: { face: 0.6, eda: 0.4 }, quality: { face: { ok: true, reason: "" }, eda: { ok: false, reason: "no contact" } }, ...more,
});
const NIGHT = {
  id: "night-3", task: "pain", demo: true, outputs: ["pain"], remarks: ["eda.csv: 2 damaged lines left out"], video: false,
  results: [result(1, 0.2), result(1.5, 0.834), result(27, null)], marks: [{ t: 40, rating: 7, text: "turned" }],
  eda: { t: [0.5, 1], v: [2, 3], unit: "a.u." }, gaps: { results: [[1.5, 27]], eda: [] },
};

let recordings, mode;
beforeEach(() => {
  asked.length = 0;
  mode = "show";
  for (const id of ["viewer-chart", "viewer-eda"]) size($(id), 600, 200);
  recordings ??= new Recordings(() => mode);
  answers["/api/v1/recordings/night-3"] = NIGHT;
});

const open = async (recording = NIGHT) => {
  answers["/api/v1/recordings/night-3"] = recording;
  await recordings.view("night-3");
};

test("the list says what each recording is, and why one cannot be opened", async () => {
  const common = { task: "pain", bundle: "pain-demo@1", created: "2026-11-26T21:14:03Z" };
  answers["/api/v1/recordings"] = { recordings: [
    { id: "a", closed: true, complete: true, ...common }, { id: "b", closed: true, complete: false, ...common },
    { id: "c", closed: false, ...common }, { id: "<b>", error: "manifest.json cannot be read" },
  ] };
  await recordings.open();
  const notes = [...$("recordings-list").querySelectorAll(".dim")].map((node) => node.textContent);
  assert.deepEqual(notes, ["pain, pain-demo@1", "pain, pain-demo@1, incomplete", "pain, pain-demo@1, open"]);
  const damaged = $("recordings-list").querySelector(".damaged");
  assert.equal(damaged.textContent, "<b>Cannot be opened: manifest.json cannot be read");
  assert.equal(damaged.tagName, "DIV"); // not a button
});

test("without recordings the list says how to make one; without an answer, that", async () => {
  answers["/api/v1/recordings"] = { recordings: [] };
  await recordings.open();
  assert.match($("recordings-list").textContent, /^No recordings yet\. Start one with Record/);
  answers["/api/v1/recordings"] = { status: 503, body: { error: "the disk does not answer" } };
  await recordings.open();
  assert.equal($("recordings-error").textContent, "the disk does not answer");
});

test("both charts have one axis, which holds results, ratings and EDA, and break in gaps", async () => {
  await open();
  const plots = [recordings.chart, recordings.eda].map(({ plot }) => plot);
  assert.deepEqual(plots.map((plot) => plot.options.scales.x.range()), [[0.5, 40], [0.5, 40]]);
  assert.deepEqual(recordings.chart.plot.data, [[1, 1.5, 14.25, 27], [0.2, 0.834, null, null]]);
  assert.deepEqual(Plot.last.options.axes[1].values(Plot.last, [2]), ["2 a.u."]);
});

test("at a time the value, its signals and its reason are those of the newest result before it", async () => {
  await open();
  assert.equal($("viewer-value").textContent, "pain 20%");
  $("viewer-scrub").value = "2";
  $("viewer-scrub").oninput();
  assert.equal($("viewer-value").textContent, "pain 83%");
  assert.equal($("viewer-time").textContent, "0:02.0");
  assert.equal($("viewer-from").textContent, "from face + EDA; uncertainty not known");
  assert.deepEqual([...$("viewer-quality").querySelectorAll("dd")].map((node) => node.textContent), ["ok, attention 60%", "— no contact"]);
});

test("a result without a number shows its reason and no number", async () => {
  await open();
  $("viewer-scrub").value = "27";
  $("viewer-scrub").oninput();
  assert.deepEqual([$("viewer-value").textContent, $("viewer-reason").textContent, $("viewer-from").textContent], ["—", "no usable modality", ""]);
});

test("a recording without results or EDA says so and draws no empty chart", async () => {
  await open({ ...NIGHT, results: [], marks: [], eda: { t: [], v: [], unit: "µS" }, gaps: { results: [], eda: [] } });
  assert.equal($("viewer-reason").textContent, "this recording has no results");
  assert.equal($("viewer-value").textContent, "—");
  assert.deepEqual([$("viewer-chart").hidden, $("viewer-eda").hidden], [true, true]);
});

test("a mark leads to its time", async () => {
  await open();
  const button = $("viewer-marks").querySelector("button");
  assert.equal(button.textContent, "0:40.0  rating 7: turned");
  button.onclick();
  assert.equal(recordings.t, 40);
});

test("playing moves in steps of a quarter of a second and stops at the end", async () => {
  await open({ ...NIGHT, results: [result(1, 0.2), result(1.6, 0.3)] });
  $("viewer-play").onclick();
  assert.equal($("viewer-play").textContent, "Pause");
  mock.timers.tick(500);
  assert.equal(recordings.t, 1.5);
  mock.timers.tick(250);
  assert.deepEqual([recordings.t, $("viewer-play").textContent], [1.6, "Play"]);
  mock.timers.tick(5000);
  assert.equal(recordings.t, 1.6);
});

test("pictures are asked for as the live face is shown, and not at all where it is hidden", async () => {
  globalThis.URL.createObjectURL = () => "blob:x";
  const path = (face) => `/api/v1/recordings/night-3/frame?t=1&face=${face}`;
  for (const face of ["show", "blur"]) answers[path(face)] = {};
  mode = "blur";
  await open({ ...NIGHT, video: true });
  await settled();
  assert.deepEqual(asked.map(([requested]) => requested), ["/api/v1/recordings/night-3", path("blur")]);
  assert.equal($("viewer-frame").hidden, false);
  mode = "hide";
  await open({ ...NIGHT, video: true });
  await settled();
  assert.equal(asked.length, 3);
  assert.equal($("viewer-frame").hidden, true);
});
