// The bedside page: receives messages, shows values, sends actions. A value without data is "—" with its reason.

import { Chart, Roll } from "./charts.js";
import { Circumplex } from "./circumplex.js";
import { $, clockTime, make, minutesSeconds as time, say } from "./dom.js";
import { FaceView } from "./face.js";
import { Events } from "./events.js";
import { Link, ask, setToken, takeToken } from "./link.js";
import { RatingPad } from "./ratings.js";
import { Recordings } from "./recordings.js";
import { AlarmSound } from "./sound.js";
import { Trend } from "./trend.js";
import { from, signed, sure, whatIf } from "./uncertainty.js";

const NONE = "—";
const NAMES = { face: "Face", voice: "Voice", eda: "EDA" };
const PAIN_SPAN = 300, EDA_SPAN = 60;
const FLOOR = -90; // dBFS

const percent = (part) => `${Math.round(part * 100)}%`;
const text = (id, value) => say($(id), value);

let run = null; // what does not change during a run
let state = null; // the newest state
let live = false;
let linked = "connecting"; // the link's state
let link = null;
let face = localStorage.getItem("jmt-edge-face");
let marks = [];
const pain = new Roll(PAIN_SPAN), eda = new Roll(EDA_SPAN);
let voiceLevel = null;

const sound = new AlarmSound();
const faceView = new FaceView($("face"));
const circumplex = new Circumplex($("circumplex"));
const recordings = new Recordings(() => face);
const pad = new RatingPad({ seen: () => ({ run, state }), moment: (t) => moment(t), changed: onRatings, done: (words) => act(async () => {}, words) });
const events = new Events({ seen: () => ({ run, state }), moment: (t) => moment(t), clock: () => clock(), face: () => face });

const limits = () => (run?.realtime && !run.alarms_off && state?.alarms.settings.enabled ? [[state.alarms.settings.limit, "--red"]] : []);
const clock = () => run?.zero ?? null;
/** A stream time as the charts show it: the time of day, in a replay that of the recording. */
const moment = (t) => (clock() === null ? time(t) : clockTime(clock() + t, true));

const painChart = new Chart($("pain-chart"), {
  series: [{ colour: "--accent", fill: true }], range: [0, 1], span: PAIN_SPAN, start: 60, scale: 100, unit: "%",
  lines: limits, clock,
  marks: () => marks.map((m) => m.t),
  rings: () => pad.values.map(([t, rating]) => [t, rating / 10]),
  ticks: () => Object.entries((cutOff() ? null : shown.result?.outputs && shown.result.without) ?? {}).map(([name, without]) => [without.pain, NAMES[name][0]]),
});
const trend = new Trend($("pain-trend"), { lines: limits, clock: () => clock() !== null, drawn: (data) => pad.agreement(data?.agreement) });
const edaChart = new Chart($("eda-chart"), {
  series: [{ colour: "--accent" }], span: EDA_SPAN, clock,
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
  else if (message.type === "marks") onMarks(message.marks, message.ratings);
}

function onHello({ run: info, history, marks: known, ratings, result, face: first }) {
  run = info;
  state = null;
  shown.result = null;
  faceView.shown = 0;
  pain.gap = run.gap;
  for (const roll of [pain, eda]) roll.clear();
  const at = Object.fromEntries(run.outputs.map((name, i) => [name, i + 1]));
  if (at.pain) for (const row of history) pain.push(row[0], row[at.pain]);
  if (at.valence) circumplex.set(history.map((row) => (row[at.valence] === null ? null : [row[at.valence], row[at.arousal]])));
  marks = [];
  $("marks").replaceChildren();
  pad.hello(run);
  events.clear();
  onMarks(known, ratings);
  const grid = $("main");
  grid.classList.toggle("no-affect", !at.valence);
  grid.classList.toggle("no-pain", !at.pain);
  grid.classList.toggle("no-eda", !run.modalities.includes("eda"));
  $("pain-card").hidden = !at.pain;
  $("settings").hidden = !at.pain || !run.realtime || Boolean(run.alarms_off);
  document.body.classList.toggle("demo", run.demo);
  $("affect-card").hidden = !at.valence;
  $("eda-card").hidden = !run.modalities.includes("eda");
  text("bundle", run.bundle);
  $("demo").hidden = !run.demo;
  text("demo", "DEMO: demo weights, trained on synthetic data");
  text("notice", run.notice);
  text("intended", run.intended_use);
  document.title = run.realtime ? "jmt-edge" : `${notLive()} · jmt-edge`;
  const precision = [...new Set(Object.values(run.precision))].join(", ");
  text("engine", `${run.backend}, ${precision}, a result every ${run.hop} s, novelty ${run.novelty}`);
  for (const node of $("marker").elements) node.disabled = !run.realtime;
  $("action-off").hidden = run.realtime;
  text("action-off", run.realtime ? "" : `${notLive()}: nothing can be noted or recorded.`);
  buildModalities();
  setFace(face ?? first, false);
  if (result) onResult(result, false);
  trend.clear();
  setSpan($("pain-span").value);
  for (const chart of [painChart, edaChart]) chart.resize();
}

/** How much of the past the pain chart shows: "live" (5 min), seconds, or "all". */
function setSpan(span) {
  const live = span === "live" || !run?.outputs.includes("pain");
  $("pain-chart").hidden = !live;
  $("pain-trend").hidden = live;
  if (live) pad.agreement(null);
  trend.show(live ? 0 : span === "all" ? null : +span);
  if (live) painChart.resize();
  else trend.resize();
}

$("pain-span").onchange = () => {
  localStorage.setItem("jmt-edge-span", $("pain-span").value);
  setSpan($("pain-span").value);
};

function onResult(result, isNew) {
  const outputs = result.outputs;
  if (isNew && run.outputs.includes("pain")) {
    pain.push(result.t, outputs?.pain);
    pain.trim();
  }
  if (run.outputs.includes("valence")) {
    const { uncertainty: known, without } = result;
    circumplex.about(known?.valence ? [known.valence, known.arousal] : null, Object.values(without ?? {}).map((o) => [o.valence, o.arousal]));
  }
  if (isNew && run.outputs.includes("valence")) circumplex.push(outputs ? [outputs.valence, outputs.arousal] : null);
  shown.result = result;
  painChart.set([pain.t, pain.v], result.t);
  showValues();
}

function onState(message) {
  state = message;
  if (linked === "live") showLink();
  if (state.stale && pain.t.length) painChart.set([pain.t, pain.v], pain.t[pain.t.length - 1] + state.age); // the gap grows
  showAlarms();
  showRecording();
  showValues();
  pad.update();
  events.update();
  if (run) {
    for (const name of run.modalities) showModality(name);
    showFaceOff();
  }
}

function onMarks(fresh, ratings) {
  marks = [...marks, ...fresh].slice(-200);
  for (const mark of fresh) $("marks").prepend(pad.line(mark));
  pad.known(ratings);
  while ($("marks").children.length > 50) $("marks").lastChild.remove();
}

/** The ratings have changed: they are drawn as they are now. */
function onRatings() {
  painChart.redraw();
  if (trend.seconds !== 0) trend.show(trend.seconds);
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
const ACTIONS_HINT = "AU6+7 eyes narrowed, 9+10 lip raised, 12 lip corners pulled, 25 lips parted, 26 jaw dropped; each 0 (as at rest) to 5. From the geometry of the face, compared with no coded face. The brows (AU4) can hardly be measured and are not shown.";

/** The label of a run whose data is from another time; empty for a live run. */
const notLive = () => (!run || run.realtime ? "" : run.replay ? "Replay" : "Not live");

/** Why nothing older may still be shown; empty while the run answers. */
function cutOff() {
  if (linked === "ended" || state?.ended) return state?.failed ? "the run has failed" : "the run has ended";
  if (!live) return "no connection";
  if (state?.stale) return `${run?.replay ? "nothing in the recording" : "no results"} for ${Math.round(state.age)} s`;
  return "";
}

/** Why there is no value; empty while the newest result is valid. */
const stalled = () => cutOff() || (shown.result ? "" : "waiting for the first result");

/** A reason short enough for a card: the problems of each signal are in the signals' card. */
const brief = (why) => (why.startsWith("no usable modality") ? "no usable modality, see Signals" : why);

function showValues() {
  if (!run) return;
  const { result } = shown, off = cutOff(), why = stalled() || result.reason, outputs = why ? null : result.outputs;
  const reduced = Boolean(outputs) && result.used.length < run.modalities.length;
  document.body.dataset.off = Boolean(off);
  const latency = off ? null : result?.latency_p50_p95_ms;
  text("p50", latency ? `${Math.round(latency[0])} ms` : NONE);
  text("p95", latency ? `${Math.round(latency[1])} ms` : NONE);
  text("dropped", off || !result ? NONE : String(result.dropped));
  text("clock", off || !state ? NONE : time(state.t));
  $("rec").hidden = Boolean(off) || !state?.recording.on;
  const huge = $("pain");
  if (run.outputs.includes("pain")) {
    const settings = state?.alarms.settings;
    huge.classList.toggle("none", !outputs);
    huge.classList.toggle("over", Boolean(outputs && run.realtime && !run.alarms_off && settings?.enabled && outputs.pain >= settings.limit));
    if (outputs) {
      const number = String(Math.round(outputs.pain * 100));
      if (huge.dataset.value !== number) huge.replaceChildren(number, make("small", {}, "%"));
      huge.dataset.value = number;
    } else {
      huge.textContent = NONE;
      huge.dataset.value = "";
    }
    text("pain-reason", outputs ? "" : brief(why));
    $("pain-reason").title = outputs ? "" : why;
    showFrom("pain", outputs && result, ["pain"]);
    huge.classList.toggle("reduced", reduced);
    const past = off ? [] : pain.recent();
    text("pain-high", past.length ? percent(Math.max(...past)) : NONE);
    text("pain-mean", past.length ? percent(past.reduce((a, b) => a + b, 0) / past.length) : NONE);
    if (!run.realtime) text("pain-limit", "no alarms");
    else if (run.alarms_off) text("pain-limit", `alarms off: ${run.alarms_off}`);
    else if (settings) text("pain-limit", settings.enabled ? `alarm from ${percent(settings.limit)} for ${settings.delay} s` : "alarm off");
  }
  if (run.outputs.includes("valence")) {
    text("valence", outputs ? signed(outputs.valence) : NONE);
    text("arousal", outputs ? signed(outputs.arousal) : NONE);
    text("affect-reason", outputs ? "" : brief(why));
    $("affect-reason").title = outputs ? "" : why;
    showFrom("affect", outputs && result, ["valence", "arousal"]);
    for (const id of ["valence", "arousal"]) $(id).classList.toggle("reduced", reduced);
    $("affect-card").classList.toggle("none", !outputs);
    if (!outputs && circumplex.points[circumplex.points.length - 1]) circumplex.push(null);
  }
  if (run.modalities.includes("eda") && state) {
    const value = off ? null : state.eda.value;
    text("eda", value === null ? NONE : value.toFixed(value < 10 ? 2 : 1));
    for (const id of ["eda", "eda-card"]) $(id).classList.toggle("none", value === null);
    text("eda-unit", value === null ? "" : state.eda.unit);
    const quality = result?.quality?.eda;
    text("eda-reason", value === null ? off || state.eda.reason || stalled() : quality && !quality.ok ? quality.reason : "");
    const recent = state.eda.scrs.filter(([, peak]) => peak > state.t - 60).length;
    text("eda-scrs", value === null ? NONE : String(recent));
  }
  const [index, each] = off || !result ? ["", ""] : result.actions_words;
  $("face-actions").hidden = !index;
  text("actions-index", index);
  text("actions-each", each);
  $("face-actions").title = `${each}. ${ACTIONS_HINT}`;
  const rested = off || !result ? "" : result.rest_words;
  $("rest-state").hidden = !rested;
  text("rest-state", rested);
  $("rest").disabled = !run.realtime;
  for (const name of run.modalities) showModality(name);
}

/** Below a card's number: where it comes from and how sure it is; what it would be without each signal as a hint. */
function showFrom(card, result, outputs) {
  const node = $(`${card}-from`);
  $(`${card}-reason`).hidden = Boolean(result);
  node.hidden = !result;
  say(node, result ? `${from(result)}; ${sure(result, outputs, run.uncertainty)}` : "");
  node.title = result ? whatIf(result, outputs) : "";
}

function buildModalities() {
  const rows = run.modalities.map((name) => {
    const verdict = make("span", { class: "verdict" }, make("span"), make("span", { class: "why" }));
    const head = make("div", { class: "modality-head" }, make("span", { class: "name" }, NAMES[name]), verdict);
    const meters = ["quality", "attention", ...(name === "voice" ? ["level"] : [])].map(meter);
    const about = { class: "modality", id: `modality-${name}`, role: "group", "aria-label": NAMES[name] };
    return make("div", about, head, ...meters);
  });
  $("modalities").replaceChildren(...rows);
  $("modalities").dataset.count = rows.length;
}

function meter(kind) {
  const range = { role: "meter", "aria-label": kind, "aria-valuemin": "0", "aria-valuemax": "100" };
  const name = make("span", { class: "meter-label" }, kind), bar = make("div", { class: `meter ${kind}`, ...range }, make("i"));
  return make("div", { class: "meter-cell", "data-kind": kind }, name, bar, make("b", {}, NONE));
}

function setMeter(row, kind, part, label) {
  const bar = row.querySelector(`[data-kind="${kind}"]`);
  const percent = part === null ? 0 : Math.round(Math.min(1, Math.max(0, part)) * 100);
  bar.querySelector("i").style.width = `${percent}%`;
  const meterNode = bar.querySelector(".meter");
  if (part === null) meterNode.removeAttribute("aria-valuenow");
  else meterNode.setAttribute("aria-valuenow", percent);
  say(bar.querySelector("b"), label);
}

/** Whose face it is, after a change, and how that person lies in the picture. */
const person = ({ track, turn }) => (track > 1 ? `, person ${track}` : "") + (turn ? `, turned by ${turn}°` : "");

function showModality(name) {
  const row = $(`modality-${name}`), { result } = shown;
  if (!row) return;
  const sensor = state?.sensors[name], lost = stalled() || sensor?.lost || "";
  const quality = lost ? null : result?.quality[name], share = lost ? null : (result?.attention[name] ?? null);
  const verdict = row.querySelector(".verdict"), [what, why] = verdict.children;
  const ok = Boolean(quality?.ok), at = lost.indexOf(", ");
  const said = lost ? `${NONE} ${at < 0 ? lost : lost.slice(0, at)}` : quality ? (ok ? `good${person(quality)}` : quality.reason) : NONE;
  const rest = at < 0 ? "" : lost.slice(at);
  say(what, said);
  say(why, rest);
  verdict.title = lost;
  verdict.classList.toggle("ok", ok);
  verdict.classList.toggle("bad", !ok);
  row.classList.toggle("lost", Boolean(lost));
  setMeter(row, "quality", quality ? quality.score : null, quality ? `${Math.round(quality.score * 100)}%` : NONE);
  setMeter(row, "attention", share, share === null ? NONE : `${Math.round(share * 100)}%`);
  if (name === "voice") showVoice();
}

function showVoice() {
  const row = $("modality-voice");
  if (!row || !state) return;
  const level = cutOff() || state.voice.reason ? null : (voiceLevel ?? state.voice.level);
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
  const lost = cutOff() || state?.sensors.face?.lost || (run?.replay && !faceView.shown ? "no picture" : "");
  const why = [FACE_TEXT[face], lost ? `${NONE} ${lost}` : ""].filter(Boolean).join(" · ");
  faceView.off = Boolean(FACE_TEXT[face] || cutOff() || state?.sensors.face?.lost);
  if (faceView.off) faceView.clear();
  $("face-off").hidden = !why;
  text("face-off", why);
}

for (const button of document.querySelectorAll("[data-face]")) button.onclick = () => setFace(button.dataset.face);

// --- alarms ----------------------------------------------------------------------------------------------------------

const KINDS = { physiological: "person", technical: "equipment" };
const wall = (at) => clockTime(at, true); // 13:02:59
const minutes = (at) => clockTime(at, false);

/** "from 13:02 to 13:03", with seconds where the minute is the same. */
function span(from, to) {
  const shown = minutes(from) === minutes(to) ? wall : minutes;
  return `from ${shown(from)} to ${shown(to)}`;
}

/** The text of an alarm. It has no changing value: that is in its card, and only there. */
function sentence(alarm) {
  if (alarm.to === null) return `${alarm.text} since ${minutes(alarm.from)}`;
  const parts = [`${alarm.text} ${span(alarm.from, alarm.to)}`];
  if (alarm.times > 1) parts.push(`${alarm.times} times`);
  if (alarm.peak !== null) parts.push(`peak ${percent(alarm.peak)}`);
  return parts.join(", ");
}

function alarmNotes(alarm, first) {
  const notes = [];
  if (first) notes.push(KINDS[alarm.kind], `${alarm.priority} priority`);
  if (alarm.state === "latched") notes.push("over, not acknowledged");
  if (alarm.state === "acknowledged") notes.push("acknowledged");
  if (alarm.no_data) notes.push("no data now");
  return notes.join(" · ");
}

/** The line of an alarm, or of the text without one; only changes are written, so that it is read out once. */
function bannerLine(id, what) {
  let line = [...$("banner-list").children].find((node) => node.dataset.id === id);
  line ??= make("div", { "data-id": id }, ...["text", "detail", "kind"].map((part) => make("span", { class: part })));
  line.className = what.alarm ? "alarm" : "calm";
  for (const name of ["state", "kind", "priority"]) line.dataset[name] = what.alarm?.[name] ?? "";
  const { text: words, detail = "", notes = "" } = what;
  [words, detail, notes].forEach((said, i) => say(line.children[i], said));
  line.title = what.alarm?.detail ?? "";
  return line;
}

/** Why there can be no alarms now; empty while they are judged. */
function unjudged() {
  if (state?.failed) return "Alarms unknown: the run has failed";
  if (linked === "ended" || state?.ended) return "The run has ended: no alarms";
  if (!live) return run?.realtime ? "Alarms unknown: no connection" : "No connection";
  if (run && !run.realtime) return run.replay ? `REPLAY of ${run.replay}: not live, no alarms` : "NOT LIVE: files at full speed, no alarms";
  return run && !state ? "Alarms unknown: connecting" : "";
}

/** What is said where nothing alarms. */
function calm() {
  const off = run?.alarms_off && run.outputs.includes("pain");
  return off ? `DEMO: pain alarms off: ${run.alarms_off}` : run?.demo ? "DEMO: no alarms" : "No alarms";
}

function showAlarms() {
  const why = unjudged(), banner = $("banner");
  const { alarms, signal, pause_left: left } = why || !state ? { alarms: [], signal: {}, pause_left: 0 } : state.alarms;
  banner.dataset.priority = alarms[0]?.priority ?? "";
  banner.dataset.signal = signal.priority ?? "";
  banner.dataset.paused = left > 0;
  if (!why) sound.set(signal.sound ? signal.priority : "");
  const lines = alarms.map((alarm, i) => {
    const detail = alarm.to === null && !i ? alarm.detail : "";
    return bannerLine(alarm.id, { alarm, text: sentence(alarm), detail, notes: alarmNotes(alarm, !i) });
  });
  if (!lines.length) lines.push(bannerLine("", { text: why || calm() }));
  const shown = [...$("banner-list").children];
  if (shown.length !== lines.length || lines.some((line, i) => line !== shown[i])) $("banner-list").replaceChildren(...lines);
  $("ack").hidden = !alarms.some((a) => a.state !== "acknowledged");
  $("pause").hidden = $("sound").hidden = Boolean(run && !run.realtime);
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

/** Do `work`, then show `done`: a sentence, or a function of the answer that returns one. */
async function act(work, done = "") {
  try {
    const answer = await work();
    text("action-note", typeof done === "function" ? await done(answer) : done);
  } catch (error) {
    text("action-note", error.message);
  }
  clearTimeout(act.timer);
  act.timer = setTimeout(() => text("action-note", ""), 6000);
}

function note(what, body) {
  if (!run?.realtime) return;
  const kept = async (answer) => `${what} ${(await answer.json()).recorded ? "recorded" : "shown here but not saved: recording is off"}`;
  act(() => ask("/api/v1/markers", body), kept);
}

$("marker").onsubmit = (event) => {
  event.preventDefault();
  const words = $("marker-text").value.trim() || "marker";
  $("marker-text").value = "";
  note("marker", { text: words });
};

function showRecording() {
  const { available, on, state: said } = state.recording;
  $("record").disabled = !available;
  text("record", on ? "Stop" : "Record");
  $("record").setAttribute("aria-label", on ? "Stop recording" : "Record");
  $("record").title = said;
  const why = run && !available && run.realtime ? "Record needs a run started with --record DIR" : "";
  $("record-off").hidden = !why;
  text("record-off", why);
  $("record").setAttribute("aria-pressed", on);
}

function toggleRecording() {
  if (state && !$("record").disabled) act(() => ask("/api/v1/recording", { on: !state.recording.on }));
}

function rest() {
  if (run?.realtime) act(() => ask("/api/v1/rest", { seconds: 120 }), "the person rests for 2 minutes");
}

$("record").onclick = toggleRecording;
$("rest").onclick = rest;
$("recordings").onclick = () => recordings.open();
$("audit").onclick = async () => {
  const { actions } = await (await ask("/api/v1/audit")).json();
  const lines = actions.reverse().map(({ time: at, client, action, previous, t, ...details }) =>
    make("li", {}, `${new Date(at).toLocaleTimeString()}  ${action}  ${JSON.stringify(details)}  from ${client}`),
  );
  $("audit-list").replaceChildren(...lines);
  if (!lines.length) $("audit-list").textContent = "Nothing yet.";
  $("audit-dialog").showModal();
};

// --- theme, keys, connection -----------------------------------------------------------------------------------------

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  for (const chart of [painChart, edaChart, trend, events]) chart.redraw();
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
  ["0–9, t", "pain rating (t = 10), stored after 5 s", null],
  ["u", "undo the rating that waits", () => pad.undo()],
  ["c", "change or withdraw the last rating", () => pad.open()],
  ["v", "events: every alarm of this run", () => events.open()],
  ["m", "marker with a note", () => pad.note()],
  ["a", "acknowledge alarms", acknowledge],
  ["p", "pause or resume alarms", pauseAlarms],
  ["s", "alarm sound on or off", toggleSound],
  ["l", "alarm limit", openSettings],
  ["r", "start or stop recording", toggleRecording],
  ["e", "the person rests for 2 minutes", rest],
  ["o", "past recordings", () => recordings.open()],
  ["f", "face: show, blur, hide", () => setFace({ show: "blur", blur: "hide", hide: "show" }[face])],
  ["d", "dark or light", toggleTheme],
  ["?", "this help", () => $("help-dialog").showModal()],
];
$("keys").append(...KEYS.flatMap(([key, what]) => [make("dt", {}, key), make("dd", {}, what)]));
$("help").onclick = () => $("help-dialog").showModal();

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (event.key === "Escape" && event.target === $("marker-text")) return $("marker-text").blur();
  if (event.target.closest("input, select, dialog")) return;
  if (/^[0-9]$/.test(event.key)) return pad.rate(+event.key);
  if (event.key === "t") return pad.rate(10);
  const known = KEYS.find(([key]) => key === event.key);
  if (known?.[2]) {
    event.preventDefault();
    known[2]();
  }
});

/** The tag in the bar: whether what is shown can be trusted. */
function showLink(said = "live") {
  const off = linked === "live" && cutOff(), name = notLive();
  text("link", off ? "stalled" : linked === "live" && name ? name.toUpperCase() : said);
  document.body.dataset.trust = linked !== "live" || off ? "none" : name ? "past" : "live";
}

const VEIL = { connecting: "Connecting", waiting: "Starting", stale: "No answer", lost: "No connection", ended: "The run has ended" };
let veilTimer = 0;

function showVeil(quiet) {
  clearInterval(veilTimer);
  $("veil").hidden = live || linked === "refused";
  if ($("veil").hidden) return;
  const since = performance.now() - (quiet ?? 0) * 1000, at = minutes(Date.now() / 1000);
  const failed = state?.failed;
  text("veil-title", failed ? "The run has failed" : VEIL[linked]);
  const show = () => {
    const waited = Math.round((performance.now() - since) / 1000);
    const heard = quiet === null ? "The run does not answer." : `Nothing heard from the run for ${waited} s.`;
    const again = { ended: `Ended at ${at}. The next run is shown here when it begins.`, waiting: "The run is being started.", connecting: "" };
    text("veil-text", failed ? `${failed}.` : (again[linked] ?? `${heard} Trying again.`));
  };
  show();
  veilTimer = setInterval(show, 500);
}

function onLink(name, said, quiet) {
  linked = name;
  live = name === "live";
  document.body.dataset.link = name;
  document.body.dataset.quiet = quiet ?? "";
  if (name === "waiting") state = shown.result = null; // of the previous run
  showLink(said);
  showVeil(quiet);
  // anyone relying on the sound must hear that monitoring has stopped; a normal end and a replay are silent
  const missed = ["stale", "lost"].includes(name) && run?.realtime;
  if (!live) sound.set(missed ? "high" : "");
  showAlarms();
  showValues();
  if (run) showFaceOff();
}

const REFUSED = "This token was not accepted. Enter the one printed when the run was last started.";

function start() {
  link = new Link({
    json: onJson, frame: (buffer) => faceView.frame(buffer), traces: onTraces, state: onLink,
    refused: (reason) => {
      text("token-error", reason && REFUSED);
      if (!$("token-dialog").open) $("token-dialog").showModal();
      $("token").focus();
    },
  });
}

document.addEventListener("visibilitychange", () => link?.look({ visible: !document.hidden }));
$("token-form").onsubmit = () => {
  setToken($("token").value.trim());
  $("token").value = "";
  link.retry();
};
$("token-dialog").oncancel = (event) => event.preventDefault(); // without a token there is nothing to go back to
const span0 = localStorage.getItem("jmt-edge-span");
if ([...$("pain-span").options].some((option) => option.value === span0)) $("pain-span").value = span0;
const saved = localStorage.getItem("jmt-edge-theme");
if (saved) setTheme(saved);
takeToken();
start();
