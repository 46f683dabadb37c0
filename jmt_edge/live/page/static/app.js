// The bedside page: takes messages, shows values, sends actions. A value without data is "—" with its reason.

import { Chart, Roll } from "./charts.js";
import { Circumplex } from "./circumplex.js";
import { FaceView } from "./face.js";
import { Link, ask, setToken, takeToken } from "./link.js";
import { Recordings } from "./recordings.js";
import { AlarmSound } from "./sound.js";

const $ = (id) => document.getElementById(id);
const NONE = "—";
const NAMES = { face: "Face", voice: "Voice", eda: "EDA" };
const PAIN_SPAN = 300, EDA_SPAN = 60;
const FLOOR = -90; // dBFS

const time = (t) => `${Math.floor(t / 60)}:${String(Math.floor(t % 60)).padStart(2, "0")}`;
const text = (id, value) => {
  const node = $(id);
  if (node.textContent !== value) node.textContent = value;
};

let run = null; // what does not change
let state = null; // the newest state
let live = false;
let link = null;
let face = localStorage.getItem("jmt-edge-face");
let marks = [];
const pain = new Roll(PAIN_SPAN), eda = new Roll(EDA_SPAN);
let voiceLevel = null;

const sound = new AlarmSound();
const faceView = new FaceView($("face"));
const circumplex = new Circumplex($("circumplex"));
const recordings = new Recordings(() => face);

const painChart = new Chart($("pain-chart"), {
  series: [{ colour: "--accent", fill: true }], range: [0, 1], span: PAIN_SPAN, start: 60, scale: 100, unit: "%",
  lines: () => (state?.alarms.settings.enabled ? [[state.alarms.settings.limit, "--red"]] : []),
  marks: () => marks.map((m) => m.t),
});
const edaChart = new Chart($("eda-chart"), {
  series: [{ colour: "--accent" }], span: EDA_SPAN,
  range: (low, high) => {
    if (low === null) return [0, 1];
    const room = Math.max(0.1, (high - low) * 0.15);
    return [Math.max(0, low - room), high + room * 1.6];
  },
  shade: () => (state?.eda.bad ?? []).map(([from, to]) => [from, to, "--bad"]),
  dots: () => (state?.eda.scrs ?? []).map(([, peak]) => [peak, valueAt(peak)]).filter(([, v]) => v !== null),
  marks: () => marks.map((m) => m.t),
});

function valueAt(t) {
  for (let i = eda.t.length - 1; i >= 0; i--) if (eda.t[i] <= t) return eda.v[i];
  return null;
}

// --- messages --------------------------------------------------------------------------------------------------------

function onJson(message) {
  if (message.type === "hello") onHello(message);
  else if (message.type === "state") onState(message);
  else if (message.type === "result") onResult(message, true);
  else if (message.type === "marks") onMarks(message.marks);
}

function onHello({ run: info, history, marks: known, result, face: first }) {
  run = info;
  for (const roll of [pain, eda]) roll.clear();
  const at = Object.fromEntries(run.outputs.map((name, i) => [name, i + 1]));
  if (at.pain) for (const row of history) pain.push(row[0], row[at.pain]);
  if (at.valence) circumplex.set(history.map((row) => (row[at.valence] === null ? null : [row[at.valence], row[at.arousal]])));
  marks = [];
  $("marks").replaceChildren();
  onMarks(known);
  const grid = $("main");
  grid.classList.toggle("no-affect", !at.valence);
  grid.classList.toggle("no-pain", !at.pain);
  grid.classList.toggle("no-eda", !run.modalities.includes("eda"));
  $("pain-card").hidden = !at.pain;
  $("settings").hidden = !at.pain;
  $("affect-card").hidden = !at.valence;
  $("eda-card").hidden = !run.modalities.includes("eda");
  text("bundle", run.bundle);
  $("demo").hidden = !run.demo;
  text("demo", "demo weights, trained on synthetic data");
  text("notice", run.notice);
  text("intended", run.intended_use);
  const precision = [...new Set(Object.values(run.precision))].join(", ");
  text("engine", `${run.backend}, ${precision}, a result every ${run.hop} s`);
  buildModalities();
  setFace(face ?? first, false);
  if (result) onResult(result, false);
  for (const chart of [painChart, edaChart]) chart.resize();
}

function onResult(result, isNew) {
  const outputs = result.outputs;
  if (isNew && run.outputs.includes("pain")) {
    pain.push(result.t, outputs?.pain);
    pain.trim();
  }
  if (isNew && run.outputs.includes("valence")) circumplex.push(outputs ? [outputs.valence, outputs.arousal] : null);
  shown.result = result;
  painChart.set([pain.t, pain.v], result.t);
  text("p50", result.latency_p50_p95_ms ? `${Math.round(result.latency_p50_p95_ms[0])} ms` : NONE);
  text("p95", result.latency_p50_p95_ms ? `${Math.round(result.latency_p50_p95_ms[1])} ms` : NONE);
  text("dropped", String(result.dropped));
  showValues();
}

function onState(message) {
  state = message;
  text("clock", time(state.t));
  showAlarms();
  showRecording();
  showValues();
  if (run) {
    for (const name of run.modalities) showModality(name);
    showFaceOff();
  }
}

function onMarks(fresh) {
  marks = [...marks, ...fresh].slice(-200);
  for (const mark of fresh) {
    const item = document.createElement("li"), when = document.createElement("time"), what = document.createElement("span");
    when.textContent = time(mark.t);
    what.textContent = [mark.rating === null ? "" : `rating ${mark.rating}`, mark.text].filter(Boolean).join(": ");
    item.append(when, what);
    $("marks").prepend(item);
  }
  while ($("marks").children.length > 50) $("marks").lastChild.remove();
}

function onTraces(buffer) {
  const data = new DataView(buffer), blocks = data.getUint8(1);
  let at = 8;
  for (let b = 0; b < blocks; b++) {
    const kind = data.getUint32(at, true), n = data.getUint32(at + 4, true), base = data.getFloat64(at + 8, true);
    const t = new Float32Array(buffer, at + 16, n), v = new Float32Array(buffer, at + 16 + 4 * n, n);
    at += 16 + 8 * n;
    if (kind === 0) {
      for (let i = 0; i < n; i++) eda.push(base + t[i], v[i]);
      eda.trim();
    } else if (n) {
      voiceLevel = v[n - 1];
    }
  }
  drawSoon();
}

let drawing = false;
function drawSoon() {
  if (drawing || document.hidden) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    const end = eda.t[eda.t.length - 1] ?? 0;
    if (end - drawnEda >= 0.06 || end < drawnEda) {
      drawnEda = end;
      edaChart.set([eda.t, eda.v], Math.max(end, state?.t ?? 0));
    }
    showVoice();
  });
}
let drawnEda = 0;

// --- values ----------------------------------------------------------------------------------------------------------

const shown = { result: null };

/** Why nothing may be shown at all; empty where the newest result stands. */
function stalled() {
  if (!live) return "no connection";
  if (state?.stale) return `no results for ${Math.round(state.age)} s`;
  if (!shown.result) return "waiting for the first result";
  return "";
}

function showValues() {
  if (!run) return;
  const { result } = shown, why = stalled() || result.reason, outputs = why ? null : result.outputs;
  const huge = $("pain");
  if (run.outputs.includes("pain")) {
    const settings = state?.alarms.settings;
    huge.classList.toggle("none", !outputs);
    huge.classList.toggle("over", Boolean(outputs && settings?.enabled && outputs.pain >= settings.limit));
    if (outputs) {
      const number = String(Math.round(outputs.pain * 100));
      if (huge.dataset.value !== number) {
        const unit = document.createElement("small");
        unit.textContent = "%";
        huge.replaceChildren(number, unit);
      }
      huge.dataset.value = number;
    } else {
      huge.textContent = NONE;
      huge.dataset.value = "";
    }
    text("pain-reason", outputs ? "" : why);
    const past = pain.v.filter((v) => v !== null);
    text("pain-high", past.length ? `${Math.round(Math.max(...past) * 100)}%` : NONE);
    text("pain-mean", past.length ? `${Math.round((past.reduce((a, b) => a + b, 0) / past.length) * 100)}%` : NONE);
    if (settings) text("pain-limit", settings.enabled ? `alarm from ${Math.round(settings.limit * 100)}% for ${settings.delay} s` : "alarm off");
  }
  if (run.outputs.includes("valence")) {
    const signed = (v) => (v < 0 ? "−" : "+") + Math.abs(v).toFixed(2);
    text("valence", outputs ? signed(outputs.valence) : NONE);
    text("arousal", outputs ? signed(outputs.arousal) : NONE);
    text("affect-reason", outputs ? "" : why);
    if (!outputs && circumplex.points[circumplex.points.length - 1]) circumplex.push(null);
  }
  if (run.modalities.includes("eda") && state) {
    const value = live && !state.stale ? state.eda.value : null;
    text("eda", value === null ? NONE : value.toFixed(value < 10 ? 2 : 1));
    $("eda").classList.toggle("none", value === null);
    text("eda-unit", value === null ? "" : state.eda.unit);
    const quality = result?.quality?.eda;
    text("eda-reason", value === null ? state.eda.reason || stalled() : quality && !quality.ok ? quality.reason : "");
    const recent = state.eda.scrs.filter(([, peak]) => peak > state.t - 60).length;
    text("eda-scrs", `${recent} ${recent === 1 ? "response" : "responses"} (SCR) in the last minute`);
  }
  for (const name of run.modalities) showModality(name);
}

function buildModalities() {
  const rows = run.modalities.map((name) => {
    const row = document.createElement("div");
    row.className = "modality";
    row.id = `modality-${name}`;
    row.setAttribute("role", "group");
    row.setAttribute("aria-label", NAMES[name]);
    const title = document.createElement("span"), verdict = document.createElement("span");
    title.className = "name";
    title.textContent = NAMES[name];
    verdict.className = "verdict";
    row.append(title, verdict, ...meter("quality", "quality"), ...meter("attention", "attention"));
    if (name === "voice") row.append(...meter("level", "level"));
    return row;
  });
  $("modalities").replaceChildren(...rows);
}

function meter(kind, label) {
  const name = document.createElement("span"), row = document.createElement("div");
  const bar = document.createElement("div"), fill = document.createElement("i"), number = document.createElement("b");
  name.className = "meter-label";
  name.textContent = label;
  row.className = "meter-row";
  bar.className = `meter ${kind}`;
  bar.append(fill);
  bar.setAttribute("role", "meter");
  bar.setAttribute("aria-label", label);
  bar.setAttribute("aria-valuemin", "0");
  bar.setAttribute("aria-valuemax", "100");
  number.textContent = NONE;
  row.append(bar, number);
  row.dataset.kind = kind;
  return [name, row];
}

function setMeter(row, kind, part, label) {
  const bar = row.querySelector(`[data-kind="${kind}"]`);
  const percent = part === null ? 0 : Math.round(Math.min(1, Math.max(0, part)) * 100);
  bar.querySelector("i").style.width = `${percent}%`;
  const meterNode = bar.querySelector(".meter");
  if (part === null) meterNode.removeAttribute("aria-valuenow");
  else meterNode.setAttribute("aria-valuenow", percent);
  const number = bar.querySelector("b");
  if (number.textContent !== label) number.textContent = label;
}

function showModality(name) {
  const row = $(`modality-${name}`), { result } = shown;
  if (!row) return;
  const sensor = state?.sensors[name], lost = stalled() || sensor?.lost || "";
  const quality = lost ? null : result?.quality[name], share = lost ? null : (result?.attention[name] ?? null);
  const verdict = row.querySelector(".verdict");
  const ok = Boolean(quality?.ok), said = lost ? `${NONE} ${lost}` : quality ? (ok ? "good" : quality.reason) : NONE;
  if (verdict.textContent !== said) verdict.textContent = said;
  verdict.classList.toggle("ok", ok);
  verdict.classList.toggle("bad", !ok);
  setMeter(row, "quality", quality ? quality.score : null, quality ? `${Math.round(quality.score * 100)}%` : NONE);
  setMeter(row, "attention", share, share === null ? NONE : `${Math.round(share * 100)}%`);
  if (name === "voice") showVoice();
}

function showVoice() {
  const row = $("modality-voice");
  if (!row || !state) return;
  const level = !live || state.stale || state.voice.reason ? null : (voiceLevel ?? state.voice.level);
  setMeter(row, "level", level === null ? null : (level - FLOOR) / -FLOOR, level === null ? NONE : `${Math.round(level)} dB`);
}

// --- face ------------------------------------------------------------------------------------------------------------

const FACE_TEXT = { hide: "hidden" };

function setFace(mode, told = true) {
  face = mode;
  if (told) {
    localStorage.setItem("jmt-edge-face", mode);
    act(() => ask("/api/v1/view", { face: mode }));
  }
  for (const button of document.querySelectorAll("[data-face]")) button.setAttribute("aria-pressed", button.dataset.face === mode);
  link?.look({ face: mode, visible: !document.hidden });
  showFaceOff();
}

function showFaceOff() {
  const sensor = state?.sensors.face;
  const why = FACE_TEXT[face] ?? (stalled() && live ? "" : !live ? "no connection" : sensor?.lost ? `${NONE} ${sensor.lost}` : "");
  faceView.off = Boolean(why);
  if (why) faceView.clear();
  $("face-off").hidden = !why;
  text("face-off", why);
  text("face-note", sensor?.lost ? sensor.lost : "");
}

for (const button of document.querySelectorAll("[data-face]")) button.onclick = () => setFace(button.dataset.face);

// --- alarms ----------------------------------------------------------------------------------------------------------

const KINDS = { physiological: "person", technical: "equipment" };
let shownAlarms = "";

function showAlarms() {
  const { alarms, signal, pause_left: left } = state.alarms, banner = $("banner");
  const gravest = alarms[0]?.priority ?? "";
  banner.dataset.priority = gravest;
  banner.dataset.signal = live ? signal.priority : "";
  banner.dataset.paused = left > 0;
  sound.set(signal.sound ? signal.priority : "");
  const key = JSON.stringify(alarms.map(({ id, state: s, text: t, no_data: n }) => [id, s, t, n]));
  if (key !== shownAlarms) {
    shownAlarms = key;
    const lines = alarms.map((alarm) => {
      const line = document.createElement("div"), kind = document.createElement("span");
      line.className = "alarm";
      line.dataset.id = alarm.id;
      line.dataset.state = alarm.state;
      line.dataset.kind = alarm.kind;
      line.textContent = alarm.text;
      const notes = [KINDS[alarm.kind], `${alarm.priority} priority`];
      if (alarm.state === "latched") notes.push("over, not acknowledged");
      if (alarm.state === "acknowledged") notes.push("acknowledged");
      if (alarm.no_data) notes.push("no data now");
      kind.className = "kind";
      kind.textContent = notes.join(" · ");
      line.append(kind);
      return line;
    });
    if (!lines.length) {
      const line = document.createElement("div");
      line.className = "calm";
      line.textContent = "No alarms";
      lines.push(line);
    }
    $("banner-list").replaceChildren(...lines);
  }
  $("ack").hidden = !alarms.some((a) => a.state !== "acknowledged");
  text("pause", left > 0 ? `Paused ${time(Math.ceil(left))}, resume` : "Pause alarms");
  $("pause").setAttribute("aria-pressed", left > 0);
}

const acknowledge = () => act(() => ask("/api/v1/alarms/acknowledge", {}));
const pauseAlarms = () => act(() => ask("/api/v1/alarms/pause", { seconds: state?.alarms.pause_left > 0 ? 0 : 120 }));

function toggleSound() {
  const on = sound.toggle();
  $("sound").setAttribute("aria-pressed", on);
  text("sound", on ? "Sound on" : "Sound off");
}

$("ack").onclick = acknowledge;
$("pause").onclick = pauseAlarms;
$("sound").onclick = toggleSound;

function openSettings() {
  if (!state || $("settings").hidden) return;
  const { limit, hysteresis, delay, enabled } = state.alarms.settings;
  $("limit").value = Math.round(limit * 100);
  $("hysteresis").value = Math.round(hysteresis * 100);
  $("delay").value = delay;
  $("enabled").checked = enabled;
  text("settings-error", "");
  showSettings();
  $("settings-dialog").showModal();
}

function showSettings() {
  text("limit-out", `${$("limit").value}%`);
  text("hysteresis-out", `${$("hysteresis").value}%`);
  text("delay-out", `${$("delay").value} s`);
}

for (const id of ["limit", "hysteresis", "delay"]) $(id).oninput = showSettings;
$("settings").onclick = openSettings;
$("settings-cancel").onclick = () => $("settings-dialog").close();
$("settings-form").onsubmit = async (event) => {
  event.preventDefault();
  try {
    await ask("/api/v1/alarms/settings", {
      limit: $("limit").value / 100, hysteresis: $("hysteresis").value / 100, delay: +$("delay").value, enabled: $("enabled").checked,
    });
    $("settings-dialog").close();
  } catch (error) {
    text("settings-error", error.message);
  }
};

// --- actions ---------------------------------------------------------------------------------------------------------

async function act(work, done = "") {
  try {
    await work();
    text("action-note", done);
  } catch (error) {
    text("action-note", error.message);
  }
  clearTimeout(act.timer);
  act.timer = setTimeout(() => text("action-note", ""), 6000);
}

function rate(rating) {
  act(() => ask("/api/v1/markers", { rating }), `rating ${rating} noted`);
}

for (let i = 0; i <= 10; i++) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = i;
  button.setAttribute("aria-label", `Pain rating ${i}`);
  button.onclick = () => rate(i);
  $("rating").append(button);
}

$("marker").onsubmit = (event) => {
  event.preventDefault();
  const note = $("marker-text").value.trim() || "marker";
  $("marker-text").value = "";
  act(() => ask("/api/v1/markers", { text: note }), "marker noted");
};

function showRecording() {
  const { available, on, state: said } = state.recording;
  $("rec").hidden = !on;
  $("record").disabled = !available;
  text("record", on ? "Stop recording" : "Record");
  $("record").title = available ? said : "This run has no recorder: start it with --record DIR";
  $("record").setAttribute("aria-pressed", on);
}

function toggleRecording() {
  if (!$("record").disabled) act(() => ask("/api/v1/recording", { on: !state.recording.on }));
}

$("record").onclick = toggleRecording;
$("recordings").onclick = () => recordings.open();
$("audit").onclick = async () => {
  const { actions } = await (await ask("/api/v1/audit")).json();
  const lines = actions.reverse().map(({ time: at, client, action, previous, t, ...details }) => {
    const item = document.createElement("li");
    item.textContent = `${new Date(at).toLocaleTimeString()}  ${action}  ${JSON.stringify(details)}  from ${client}`;
    return item;
  });
  $("audit-list").replaceChildren(...lines);
  if (!lines.length) $("audit-list").textContent = "Nothing yet.";
  $("audit-dialog").showModal();
};

// --- theme, keys, connection -----------------------------------------------------------------------------------------

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  for (const chart of [painChart, edaChart]) chart.redraw();
  circumplex.draw();
}

function toggleTheme() {
  const now = document.documentElement.dataset.theme;
  const dark = now === "auto" ? matchMedia("(prefers-color-scheme: dark)").matches : now === "dark";
  localStorage.setItem("jmt-edge-theme", dark ? "light" : "dark");
  setTheme(dark ? "light" : "dark");
}

$("theme").onclick = toggleTheme;
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => setTheme(document.documentElement.dataset.theme));

const KEYS = [
  ["0–9, t", "pain rating (t = 10)", null],
  ["m", "marker with a note", () => $("marker-text").focus()],
  ["a", "acknowledge alarms", acknowledge],
  ["p", "pause or resume alarms", pauseAlarms],
  ["s", "alarm sound on or off", toggleSound],
  ["l", "alarm limit", openSettings],
  ["r", "start or stop recording", toggleRecording],
  ["o", "past recordings", () => recordings.open()],
  ["f", "face: show, blur, hide", () => setFace({ show: "blur", blur: "hide", hide: "show" }[face])],
  ["d", "dark or light", toggleTheme],
  ["?", "this help", () => $("help-dialog").showModal()],
];
$("keys").append(
  ...KEYS.flatMap(([key, what]) => {
    const dt = document.createElement("dt"), dd = document.createElement("dd");
    dt.textContent = key;
    dd.textContent = what;
    return [dt, dd];
  }),
);
$("help").onclick = () => $("help-dialog").showModal();

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (event.key === "Escape" && event.target === $("marker-text")) return $("marker-text").blur();
  if (event.target.closest("input, dialog")) return;
  if (/^[0-9]$/.test(event.key)) return rate(+event.key);
  if (event.key === "t") return rate(10);
  const known = KEYS.find(([key]) => key === event.key);
  if (known?.[2]) {
    event.preventDefault();
    known[2]();
  }
});

let veilTimer = 0;
function onLink(name, said, quiet) {
  live = name === "live";
  document.body.dataset.link = name;
  document.body.dataset.quiet = quiet ?? "";
  text("link", said);
  clearInterval(veilTimer);
  $("veil").hidden = live;
  if (live) return;
  const since = performance.now() - (quiet ?? 0) * 1000;
  const show = () => {
    text("veil-title", name === "stale" ? "Stale" : "No connection");
    const seconds = Math.round((performance.now() - since) / 1000);
    text("veil-text", `${quiet === null ? "The run does not answer." : `Nothing heard from the run for ${seconds} s.`} Trying again.`);
  };
  show();
  veilTimer = setInterval(show, 500);
  sound.set(run ? "high" : ""); // whoever relies on the sound must hear that nobody watches any more
  showValues();
  if (run) showFaceOff();
}

function start() {
  link = new Link({
    json: onJson, frame: (buffer) => faceView.frame(buffer), traces: onTraces, state: onLink,
    refused: () => $("token-dialog").showModal(),
  });
}

document.addEventListener("visibilitychange", () => link?.look({ visible: !document.hidden }));
$("token-form").onsubmit = () => {
  setToken($("token").value.trim());
  link.retry();
};
const saved = localStorage.getItem("jmt-edge-theme");
if (saved) setTheme(saved);
takeToken();
start();
