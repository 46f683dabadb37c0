// The bedside page: receives messages, shows values, sends actions. A value without data is "—" with its reason.

import { alarmNotes, calm, minutes, sentence, soundOfLoss, unjudged } from "./alarms.js";
import { Chart, Roll } from "./charts.js";
import { Circumplex } from "./circumplex.js";
import { $, make, minutesSeconds as time, say } from "./dom.js";
import { FaceView } from "./face.js";
import { Events } from "./events.js";
import { pressed } from "./keys.js";
import { inDialog, openDialog } from "./layers.js";
import { Link, ask, setToken, takeToken } from "./link.js";
import { meter, setMeter } from "./meters.js";
import { RatingPad } from "./ratings.js";
import { Recordings } from "./recordings.js";
import { SessionStart } from "./session.js";
import { levelShare, measured, verdictOf } from "./signals.js";
import { AlarmSound } from "./sound.js";
import { clockTime, inLanguage, percent, percentParts, plain, signed, tr, translated } from "./text.js";
import { Span, Trend } from "./trend.js";
import { from, sure, whatIf } from "./uncertainty.js";
import * as values from "./values.js";

const { NAMES, NONE, brief } = values;
const PAIN_SPAN = 300, EDA_SPAN = 60;

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
  series: [{ colour: "--accent", fill: true }], range: [0, 1], span: PAIN_SPAN, start: 60, scale: 100, unit: "%", right: 44,
  lines: limits, clock,
  marks: () => marks.map((m) => m.t),
  rings: () => pad.values.map(([t, rating]) => [t, rating / 10]),
  ticks: () => Object.entries((cutOff() ? null : shown.result?.outputs && shown.result.without) ?? {}).map(([name, without]) => [without.pain, NAMES[name][0]]),
});
const timed = () => clock() !== null;
const trends = {
  pain: new Trend($("pain-trend"), {
    outputs: { pain: "--accent" }, range: [0, 1], scale: 100, unit: "%", lines: limits, rated: true, clock: timed,
    drawn: (data) => pad.agreement(data?.agreement),
  }),
  affect: new Trend($("affect-trend"), { outputs: { valence: "--accent", arousal: "--accent-2" }, range: [-1, 1], clock: timed }),
};
const has = (output) => () => Boolean(run?.outputs.includes(output));
/** How much of the past the cards show. */
const spans = [
  new Span("pain", trends.pain, {
    key: "jmt-edge-span", has: has("pain"),
    shown: (hours) => {
      $("pain-chart").hidden = hours;
      if (hours) return;
      pad.agreement(null);
      painChart.resize();
    },
  }),
  new Span("affect", trends.affect, {
    key: "jmt-edge-affect-span", has: has("valence"), shown: (hours) => $("affect-card").classList.toggle("hours", hours),
  }),
];
const edaChart = new Chart($("eda-chart"), {
  series: [{ colour: "--accent" }], span: EDA_SPAN, clock,
  range: (low, high) => {
    if (low === null) return [0, 1];
    const room = Math.max(0.1, (high - low) * 0.15);
    return [Math.max(0, low - room), high + room * 1.6];
  },
  shade: () => (state?.eda.bad ?? []).map(([begin, end]) => [begin, end, "--bad"]),
  dots: () => (state?.eda.scrs ?? []).map(([, peak]) => [peak, valueAt(peak)]).filter(([, v]) => v !== null),
  marks: () => marks.map((m) => m.t),
});

function valueAt(t) {
  for (let i = eda.t.length - 1; i >= 0; i--) if (eda.t[i] <= t) return eda.v[i];
  return null;
}

const session = new SessionStart({
  run: () => run, state: () => state, result: () => shown.result, off: cutOff,
  note: (said) => act(async () => {}, said),
  closed: () => [painChart, edaChart].forEach((chart) => chart.resize()),
});

// --- messages --------------------------------------------------------------------------------------------------------

function onJson(received) {
  const message = inLanguage(received);
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
  showCards();
  showRun();
  for (const node of $("marker").elements) node.disabled = !run.realtime;
  $("action-off").hidden = run.realtime;
  text("action-off", run.realtime ? "" : tr("{what}: nothing can be noted or recorded.", { what: notLive() }));
  buildModalities();
  setFace(face ?? first, false);
  if (result) onResult(result, false);
  for (const one of Object.values(trends)) one.clear();
  for (const span of spans) span.apply();
  for (const chart of [painChart, edaChart]) chart.resize();
  session.onRun(`${run.bundle} ${run.zero}`);
}

/** The cards that the run has something for. */
function showCards() {
  const holds = { pain: run.outputs.includes("pain"), affect: run.outputs.includes("valence"), eda: run.modalities.includes("eda") };
  for (const [name, there] of Object.entries(holds)) {
    $("main").classList.toggle(`no-${name}`, !there);
    $(`${name}-card`).hidden = !there;
  }
  $("settings").hidden = !holds.pain || !run.realtime || Boolean(run.alarms_off);
  document.body.classList.toggle("demo", run.demo);
}

/** What is said of the run as a whole. */
function showRun() {
  text("bundle", run.bundle);
  $("demo").hidden = !run.demo;
  text("demo", tr("DEMO: demo weights, trained on synthetic data"));
  text("notice", run.notice);
  text("intended", run.intended_use);
  document.title = run.realtime ? "jmt-edge" : `${notLive()} · jmt-edge`;
  const precision = [...new Set(Object.values(run.precision))].join(", ");
  text("engine", tr("{backend}, {precision}, a result every {hop} s, novelty {novelty}", { ...run, precision, hop: plain(run.hop), novelty: NOVELTY[run.novelty] ?? run.novelty }));
}

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
  session.update();
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
  if (trends.pain.seconds !== 0) trends.pain.show(trends.pain.seconds);
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
const NOVELTY = { gate: tr("gate"), warn: tr("warn"), off: tr("off"), "not checked": tr("not checked") };
const ACTIONS_HINT = tr("AU6+7 eyes narrowed, 9+10 lip raised, 12 lip corners pulled, 25 lips parted, 26 jaw dropped; each 0 (as at rest) to 5. From the geometry of the face, compared with no coded face. The brows (AU4) can hardly be measured and are not shown.");

function seen() {
  return { run, state, live, linked };
}

/** Why nothing older may still be shown; empty while the run answers. */
function cutOff() {
  return values.cutOff(seen());
}

const notLive = () => values.notLive(run);
const stalled = () => values.stalled(seen(), shown.result);

function showValues() {
  if (!run) return;
  const { result } = shown, off = cutOff(), why = stalled() || result.reason, outputs = why ? null : result.outputs;
  const now = { result, off, why, outputs, reduced: Boolean(outputs) && result.used.length < run.modalities.length };
  document.body.dataset.off = Boolean(off);
  showEdges(now);
  if (run.outputs.includes("pain")) showPain(now);
  if (run.outputs.includes("valence")) showAffect(now);
  if (run.modalities.includes("eda") && state) showEda(now);
  showActions(now);
  showRest(now);
  for (const name of run.modalities) showModality(name);
}

/** Header and footer. */
function showEdges({ result, off }) {
  values.latencyWords(off ? null : result?.latency_p50_p95_ms).forEach((said, i) => text(["p50", "p95"][i], said));
  text("dropped", off || !result ? NONE : String(result.dropped));
  text("clock", off || !state ? NONE : time(state.t));
  $("rec").hidden = Boolean(off) || !state?.recording.on;
}

function showPain({ result, off, why, outputs, reduced }) {
  const settings = state?.alarms.settings, [number, sign] = outputs ? percentParts(outputs.pain) : ["", ""], huge = $("pain");
  huge.classList.toggle("none", !outputs);
  huge.classList.toggle("over", Boolean(outputs) && values.over(run, settings, outputs.pain));
  huge.classList.toggle("reduced", reduced);
  if (!outputs) huge.textContent = NONE;
  else if (huge.dataset.value !== number) huge.replaceChildren(number, make("small", {}, sign));
  huge.dataset.value = number;
  showWhy("pain", outputs ? "" : why);
  showFrom("pain", outputs && result, ["pain"]);
  values.highAndMean(off ? [] : pain.recent()).forEach((said, i) => text(["pain-high", "pain-mean"][i], said));
  if (settings || !run.realtime || run.alarms_off) text("pain-limit", values.limitWords(run, settings));
}

function showAffect({ result, why, outputs, reduced }) {
  for (const name of ["valence", "arousal"]) {
    text(name, outputs ? signed(outputs[name]) : NONE);
    $(name).classList.toggle("reduced", reduced);
  }
  showWhy("affect", outputs ? "" : why);
  showFrom("affect", outputs && result, ["valence", "arousal"]);
  $("affect-card").classList.toggle("none", !outputs);
  if (!outputs && circumplex.points[circumplex.points.length - 1]) circumplex.push(null);
}

function showEda({ result, off }) {
  const value = off ? null : state.eda.value, none = value === null;
  for (const id of ["eda", "eda-card"]) $(id).classList.toggle("none", none);
  text("eda", values.conductance(value));
  text("eda-unit", none ? "" : state.eda.unit);
  text("eda-reason", none ? off || state.eda.reason || stalled() : values.fault(result?.quality?.eda));
  text("eda-scrs", none ? NONE : String(values.recentScrs(state.eda.scrs, state.t)));
}

function showActions({ result, off }) {
  const [index, each] = off || !result ? ["", ""] : result.actions_words;
  $("face-actions").hidden = !index;
  text("actions-index", index);
  text("actions-each", each);
  $("face-actions").title = `${each}. ${ACTIONS_HINT}`;
}

function showRest({ result, off }) {
  const rested = off ? "" : withSession(result?.rest_words ?? "");
  $("rest-state").hidden = !rested;
  text("rest-state", rested);
  $("rest").disabled = !run.realtime;
}

/** Why a card has no number; all of it as a hint. */
function showWhy(card, why) {
  text(`${card}-reason`, brief(why));
  $(`${card}-reason`).title = why;
}

/** What is said of the rest, with whose session it is and what that lacks, once one has begun. */
function withSession(words) {
  const { began, subject } = state?.session ?? {};
  if (!began && !subject) return words;
  if (words) return subject ? `${subject}: ${words}` : words;
  const who = subject || tr("no code");
  return state.recording.on ? tr("{who}: no rest measured", { who }) : tr("{who}: no rest measured, not recorded", { who });
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

function showModality(name) {
  const row = $(`modality-${name}`), { result } = shown;
  if (!row) return;
  const lost = stalled() || state?.sensors[name]?.lost || "";
  const { quality, share } = lost ? { share: null } : measured(result, name);
  const verdict = row.querySelector(".verdict"), [what, why] = verdict.children, { ok, said, more } = verdictOf(quality, lost);
  say(what, said);
  say(why, more);
  verdict.title = lost;
  verdict.classList.toggle("ok", ok);
  verdict.classList.toggle("bad", !ok);
  row.classList.toggle("lost", Boolean(lost));
  for (const [kind, part] of [["quality", quality ? quality.score : null], ["attention", share]]) {
    setMeter(row.querySelector(`[data-kind="${kind}"]`), part, part === null ? NONE : percent(part));
  }
  if (name === "voice") showVoice();
}

function showVoice() {
  const row = $("modality-voice");
  if (!row || !state) return;
  const level = cutOff() || state.voice.reason ? null : (voiceLevel ?? state.voice.level);
  setMeter(row.querySelector("[data-kind=level]"), levelShare(level), level === null ? NONE : `${Math.round(level)} dB`);
}

// --- face ------------------------------------------------------------------------------------------------------------

const FACE_TEXT = { hide: tr("hidden") };

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
  const away = cutOff() || state?.sensors.face?.lost || "", lost = away || (run?.replay && !faceView.shown ? tr("no picture") : "");
  const why = [FACE_TEXT[face], lost ? `${NONE} ${lost}` : ""].filter(Boolean).join(" · ");
  faceView.off = Boolean(FACE_TEXT[face] || away);
  if (faceView.off) faceView.clear();
  $("face-off").hidden = !why;
  text("face-off", why);
}

for (const button of document.querySelectorAll("[data-face]")) button.onclick = () => setFace(button.dataset.face);

// --- alarms ----------------------------------------------------------------------------------------------------------

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

function alarmLine(alarm, i) {
  const detail = alarm.to === null && !i ? alarm.detail : "";
  return bannerLine(alarm.id, { alarm, text: sentence(alarm), detail, notes: alarmNotes(alarm, !i) });
}

function showAlarms() {
  const why = unjudged(seen()), banner = $("banner");
  const { alarms, signal, pause_left: left } = why || !state ? { alarms: [], signal: {}, pause_left: 0 } : state.alarms;
  banner.dataset.priority = alarms[0]?.priority ?? "";
  banner.dataset.signal = signal.priority ?? "";
  banner.dataset.paused = left > 0;
  if (!why) sound.set(signal.sound ? signal.priority : "");
  const lines = alarms.length ? alarms.map(alarmLine) : [bannerLine("", { text: why || calm(run) })];
  const there = [...$("banner-list").children];
  if (there.length !== lines.length || lines.some((line, i) => line !== there[i])) $("banner-list").replaceChildren(...lines);
  $("ack").hidden = !alarms.some((a) => a.state !== "acknowledged");
  showPause(left);
}

function showPause(left) {
  $("pause").hidden = $("sound").hidden = Boolean(run && !run.realtime);
  text("pause", left > 0 ? tr("Paused {time}, resume", { time: time(Math.ceil(left)) }) : tr("Pause alarms"));
  $("pause").setAttribute("aria-pressed", left > 0);
}

const acknowledge = () => act(() => ask("/api/v1/alarms/acknowledge", {}));
const pauseAlarms = () => act(() => ask("/api/v1/alarms/pause", { seconds: state?.alarms.pause_left > 0 ? 0 : 120 }));

function toggleSound() {
  const on = sound.toggle();
  $("sound").setAttribute("aria-pressed", on);
  text("sound", on ? tr("Sound on") : tr("Sound off"));
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
  openDialog($("settings-dialog"));
}

function showSettings() {
  for (const id of ["limit", "hysteresis"]) text(`${id}-out`, percent($(id).value / 100));
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

function note(body) {
  if (!run?.realtime) return;
  const kept = async (answer) => ((await answer.json()).recorded ? tr("marker recorded") : tr("marker shown here but not saved: recording is off"));
  act(() => ask("/api/v1/markers", body), kept);
}

$("marker").onsubmit = (event) => {
  event.preventDefault();
  const words = $("marker-text").value.trim() || tr("marker");
  $("marker-text").value = "";
  note({ text: words });
};

function showRecording() {
  const { available, on, state: said } = state.recording;
  $("record").disabled = !available;
  text("record", on ? tr("Stop") : tr("Record"));
  $("record").setAttribute("aria-label", on ? tr("Stop recording") : tr("Record"));
  $("record").title = translated(said);
  const why = run && !available && run.realtime ? tr("Record needs a run started with --record DIR") : "";
  $("record-off").hidden = !why;
  text("record-off", why);
  $("record").setAttribute("aria-pressed", on);
}

function toggleRecording() {
  if (state && !$("record").disabled) act(() => ask("/api/v1/recording", { on: !state.recording.on }));
}

function rest() {
  if (run?.realtime) act(() => ask("/api/v1/rest", { seconds: 120 }), tr("the person rests for 2 minutes"));
}

$("record").onclick = toggleRecording;
$("rest").onclick = rest;
$("recordings").onclick = () => recordings.open();
$("audit").onclick = async () => {
  const { actions } = await (await ask("/api/v1/audit")).json();
  const lines = actions.reverse().map(({ time: at, client, action, previous, t, ...details }) =>
    make("li", {}, `${clockTime(Date.parse(at) / 1000, true)}  ${action}  ${JSON.stringify(details)}  ${tr("from {client}", { client })}`),
  );
  $("audit-list").replaceChildren(...lines);
  if (!lines.length) $("audit-list").textContent = tr("Nothing yet.");
  openDialog($("audit-dialog"));
};

// --- theme, keys, connection -----------------------------------------------------------------------------------------

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  for (const chart of [painChart, edaChart, ...Object.values(trends), events]) chart.redraw();
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
  ["0–9, t", tr("pain rating (t = 10), stored after 5 s"), null],
  ["u", tr("undo the rating that waits"), () => pad.undo()],
  ["c", tr("change or withdraw the last rating"), () => pad.open()],
  ["v", tr("events: every alarm of this run"), () => events.open()],
  ["m", tr("marker with a note"), () => pad.note()],
  ["a", tr("acknowledge alarms"), acknowledge],
  ["p", tr("pause or resume alarms"), pauseAlarms],
  ["s", tr("alarm sound on or off"), toggleSound],
  ["l", tr("alarm limit"), openSettings],
  ["r", tr("start or stop recording"), toggleRecording],
  ["e", tr("the person rests for 2 minutes"), rest],
  ["o", tr("past recordings"), () => recordings.open()],
  ["f", tr("face: show, blur, hide"), () => setFace({ show: "blur", blur: "hide", hide: "show" }[face])],
  ["d", tr("dark or light"), toggleTheme],
  ["?", tr("this help"), () => openDialog($("help-dialog"))],
];
$("keys").append(...KEYS.flatMap(([key, what]) => [make("dt", {}, key), make("dd", {}, what)]));
$("help").onclick = () => openDialog($("help-dialog"));

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && event.target === $("marker-text")) $("marker-text").blur();
  const asked = pressed(event, session.shown || inDialog()), known = KEYS.find(([key]) => key === asked?.key);
  if (asked?.rating !== undefined) pad.rate(asked.rating);
  else if (asked?.key === "Escape" && session.shown) session.close();
  else if (known?.[2]) {
    event.preventDefault();
    known[2]();
  }
});

/** The tag in the bar: whether what is shown can be trusted. */
function showLink(said = tr("live")) {
  const off = linked === "live" && cutOff(), name = notLive();
  text("link", off ? tr("stalled") : linked === "live" && name ? name.toUpperCase() : said);
  document.body.dataset.trust = linked !== "live" || off ? "none" : name ? "past" : "live";
}

const VEIL = { connecting: tr("Connecting"), waiting: tr("Starting"), stale: tr("No answer"), lost: tr("No connection"), ended: tr("The run has ended") };
let veilTimer = 0;

function showVeil(quiet) {
  clearInterval(veilTimer);
  $("veil").hidden = live || linked === "refused";
  if ($("veil").hidden) return;
  const since = performance.now() - (quiet ?? 0) * 1000, at = minutes(Date.now() / 1000);
  const failed = state?.failed;
  text("veil-title", failed ? tr("The run has failed") : VEIL[linked]);
  const show = () => {
    const waited = Math.round((performance.now() - since) / 1000);
    const heard = quiet === null ? tr("The run does not answer.") : tr("Nothing heard from the run for {n} s.", { n: waited });
    const again = { ended: tr("Ended at {time}. The next run is shown here when it begins.", { time: at }), waiting: tr("The run is being started."), connecting: "" };
    text("veil-text", failed ? `${failed}.` : (again[linked] ?? `${heard} ${tr("Trying again.")}`));
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
  if (!live) sound.set(soundOfLoss(name, run));
  showAlarms();
  showValues();
  if (run) showFaceOff();
  session.update();
}

const REFUSED = tr("This token was not accepted. Enter the one printed when the run was last started.");

function start() {
  link = new Link({
    json: onJson, frame: (buffer) => faceView.frame(buffer), traces: onTraces, state: onLink,
    refused: (reason) => {
      text("token-error", reason && REFUSED);
      openDialog($("token-dialog"));
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
const saved = localStorage.getItem("jmt-edge-theme");
if (saved) setTheme(saved);
takeToken();
start();
