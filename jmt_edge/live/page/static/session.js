// The start of a session: whose it is, each sensor in its place, two minutes of rest, then one button. The view lies
// where the cards are: the alarms above it stay, with their buttons and their sound.

import { $, make, minutesSeconds, say } from "./dom.js";
import { ask } from "./link.js";
import { setBar } from "./meters.js";
import { percent, tr } from "./text.js";
import { NAMES } from "./values.js";

const KEPT = "jmt-edge-start"; // of this tab, so that a reload loses nothing
const REST = 120; // s
const PLACES = {
  face: [tr("Camera"), tr("In front of the face, at most 30° to the side, and so near that the face is 100 pixels wide or more.")],
  voice: [tr("Microphone"), tr("30 to 50 cm from the mouth, beside the breath and away from pumps and fans. The person speaks in their usual voice.")],
  eda: [tr("EDA electrodes"), tr("On the palm side of one hand, which is washed and dry and rests palm up. Fix the leads to the wrist.")],
};
const NO_CODE = tr("A code has 1 to 32 letters, digits, “.”, “_” or “-”, and is not a name.");

const LEFT = { done: tr("done"), refused: tr("refused"), "": "—" };

/** What becomes of a recording when the session begins. recording: as in the state; records: whether it is wanted. */
export function recordingNote({ available, on } = {}, records = false) {
  if (!available) return tr("Recording needs a run started with --record DIR.");
  if (records) return on ? tr("What is recorded now ends then, and a recording of this session begins.") : tr("Recording starts with the session.");
  return on ? tr("What is recorded now ends when the session begins.") : tr("Nothing is recorded.");
}

/** Where the rest stands, see `SessionStart.#restNow`: left, done, refused, or "" where there is none. */
export function stageOf({ off, mine, lasts, kept }) {
  if (lasts) return "left";
  if (off || !mine) return "";
  return kept.length ? "done" : "refused";
}

/** What is said below a rest, see `SessionStart.#restNow`. faults: [name, what to do, why] of each signal that cannot be
 * used now; none: no signal can be. */
export function restLines({ off, mine, lasts, kept, refused, older }, faults, none) {
  if (off) return [`— ${off}`];
  const lines = lasts || !mine ? faults.map(([name, what, why]) => tr("{what} cannot be used now: {why}", { what: NAMES[name], why: what || why })) : [];
  if (kept.length) lines.push(tr("Measured: {what}.", { what: kept.map((name) => NAMES[name]).join(", ") }));
  for (const [name, why] of Object.entries(refused)) lines.push(tr("{what} has no rest: {why}.", { what: NAMES[name], why }));
  if (older) lines.push("left" in older ? tr("A rest is being measured already.") : tr("The rest that was measured before is not used: it may be another person's."));
  if (none && !lasts) lines.push(tr("No rest can begin: no signal can be used."));
  return lines;
}

/** Put `items` into `node` where they are not there yet: a screen reader reads what is replaced. */
function fill(node, items) {
  if (node.innerHTML !== items.map((item) => item.outerHTML).join("")) node.replaceChildren(...items);
}

/** What is known of a new start: the step's number, the sensor's, the code, and what was done or skipped. */
const fresh = () => ({ open: false, step: 0, sensor: 0, code: "", coded: null, record: null, checked: {}, rest: "" });

/** The view in `#session`. on: {run(), state(), result(), off(): why nothing is known, note(text), closed()}. */
export class SessionStart {
  constructor(on) {
    this.on = on;
    this.is = fresh();
    this.began = undefined; // of the run's session, when this view was opened
    this.homes = new Map(); // live views that are lent to a step -> where they belong
    $("session-open").onclick = () => this.open();
    $("session-leave").onclick = () => this.close();
    $("session-back").onclick = () => this.#back();
    $("session-skip").onclick = () => this.#skip();
    $("session-next").onclick = () => this.#next();
    $("session-rest").onclick = () => this.#rest();
    $("session-code").oninput = () => this.#keep({ code: $("session-code").value.trim() });
    $("session-form").onsubmit = (event) => {
      event.preventDefault();
      this.#next();
    };
    $("session-record").onchange = () => this.#keep({ record: $("session-record").checked });
  }

  get shown() {
    return !$("session").hidden;
  }

  /** Another run is shown; `key` tells it from others. */
  onRun(key) {
    const kept = JSON.parse(sessionStorage.getItem(KEPT) ?? "null");
    const same = kept?.key === key && this.on.run().realtime;
    this.key = key;
    this.is = same ? kept.is : fresh();
    this.left = same && !this.is.open; // the person has closed the view: it does not open by itself again
    if (this.shown) this.#hide();
    $("session-open").hidden = !this.on.run().realtime;
    if (this.is.open) this.open();
  }

  /** A new state or result. */
  update() {
    const session = this.on.state()?.session;
    if (!session || !this.on.run()?.realtime) return;
    if (session.asks && !this.left) this.open();
    if (!this.shown) return;
    const began = session.began ?? 0;
    this.began ??= began;
    if (began !== this.began && !this.asking) this.#done(tr("a session was begun on another screen"));
    else this.#draw();
  }

  open() {
    if (this.shown || $("session-open").hidden) return;
    this.began = this.on.state()?.session.began ?? (this.on.state() ? 0 : undefined);
    this.#keep({ open: true });
    $("main").classList.add("in-session");
    $("session").hidden = false;
    $("session-code").value = this.is.code;
    this.#go(this.is.step, this.is.sensor);
  }

  /** Leave: what was entered stays until the run or a session begins. */
  close() {
    this.left = true;
    this.#keep({ open: false });
    this.#hide();
    $("session-open").focus();
  }

  #hide() {
    this.#lend();
    $("session").hidden = true;
    $("main").classList.remove("in-session");
    this.on.closed();
  }

  #done(said) {
    this.is = fresh();
    this.left = true;
    this.#keep({});
    this.#hide();
    this.on.note(said);
  }

  #keep(changes) {
    Object.assign(this.is, changes);
    sessionStorage.setItem(KEPT, JSON.stringify({ key: this.key, is: this.is }));
  }

  /** The sensors that the run has. */
  get #sensors() {
    const run = this.on.run();
    return run.modalities.filter((name) => run.sources[name]);
  }

  // --- steps -----------------------------------------------------------------------------------------------------

  #go(step, sensor = 0) {
    this.#keep({ step, sensor });
    say($("session-error"), "");
    this.#draw();
    (step === 0 ? $("session-code") : $("session-title")).focus({ preventScroll: true });
    $("session").scrollIntoView({ block: "nearest" });
  }

  #back() {
    const { step, sensor } = this.is;
    if (step === 1 && sensor > 0) this.#go(1, sensor - 1);
    else if (step > 0) this.#go(step - 1, step === 2 ? Math.max(0, this.#sensors.length - 1) : 0);
  }

  #forward() {
    const { step, sensor } = this.is, more = step === 1 && sensor + 1 < this.#sensors.length;
    if (more) this.#go(1, sensor + 1);
    else this.#go(step + 1);
  }

  #next() {
    const { step, sensor, code, checked } = this.is;
    if (step === 0) {
      const field = $("session-code");
      if (!code || !field.checkValidity()) {
        say($("session-error"), code ? NO_CODE : tr("Enter a code, or skip this step."));
        field.focus();
        return;
      }
      this.#keep({ coded: true });
    } else if (step === 1) {
      this.#keep({ checked: { ...checked, [this.#sensors[sensor]]: true } });
    } else if (step === 2) {
      this.#keep({ rest: "measured" });
    } else {
      this.#begin();
      return;
    }
    this.#forward();
  }

  #skip() {
    const { step, sensor, checked } = this.is;
    if (step === 0) {
      $("session-code").value = "";
      this.#keep({ code: "", coded: false });
    } else if (step === 1) this.#keep({ checked: { ...checked, [this.#sensors[sensor]]: false } });
    else this.#keep({ rest: "skipped" });
    this.#forward();
  }

  async #rest() {
    const before = this.on.result()?.index ?? -1;
    try {
      await ask("/api/v1/rest", { seconds: REST });
      this.#keep({ rest: "asked", since: before });
      say($("session-error"), "");
    } catch (error) {
      say($("session-error"), error.message);
    }
    this.#draw();
  }

  async #begin() {
    this.asking = true;
    const record = this.#records, rest = this.is.rest === "measured" || this.is.rest === "asked";
    try {
      await ask("/api/v1/session", { subject: this.is.code, record, rest });
      this.#done(tr("the session has begun"));
    } catch (error) {
      say($("session-error"), error.message);
    }
    this.asking = false;
  }

  get #records() {
    const recording = this.on.state()?.recording;
    return Boolean(recording?.available && (this.is.record ?? true));
  }

  // --- what the steps say ------------------------------------------------------------------------------------------

  /** What is wrong with a signal now: [what to do, the reason]; both empty where it is good. */
  #fault(name) {
    const off = this.on.off();
    if (off) return ["", off];
    const sensor = this.on.state()?.sensors[name], quality = this.on.result()?.quality[name];
    const why = sensor?.lost || (quality ? (quality.ok ? "" : quality.reason) : tr("waiting for the first result"));
    return [why ? (sensor?.advice ?? "") : "", why];
  }

  /** The rest of this start: {left} while it lasts, {kept: [names], refused: {name: why}} after it, null without. */
  #rested() {
    const { rest } = this.on.result() ?? {};
    if (this.on.off() || !rest || (!("left" in rest) && !rest.difference)) return null;
    if ("left" in rest) return { left: rest.left };
    return { kept: Object.keys(rest.difference), refused: rest.refused };
  }

  /** What has been done, for the four steps: [state, words]. */
  #account() {
    const { step, code, coded, checked, rest } = this.is, sensors = this.#sensors;
    const skipped = sensors.filter((name) => checked[name] === false).map((name) => NAMES[name]);
    const seen = sensors.filter((name) => name in checked).length === sensors.length;
    const rested = { measured: ["done", tr("measured")], skipped: ["skipped", tr("no rest measured")], asked: ["", tr("begun")] }[rest] ?? ["", ""];
    return [
      [tr("Person"), ...(coded === null ? ["", ""] : coded ? ["done", code] : ["skipped", tr("no code")])],
      [tr("Signals"), ...(skipped.length ? ["skipped", tr("{what} not checked", { what: skipped.join(", ") })] : seen && step > 0 ? ["done", tr("checked")] : ["", ""])],
      [tr("Rest"), ...rested],
      [tr("Begin"), "", ""],
    ];
  }

  #draw() {
    if (!this.shown) return;
    const { step } = this.is;
    const items = this.#account().map(([name, how, words], i) => {
      const label = `${i + 1} ${name}${words ? `: ${words}` : ""}`;
      return make("li", { "data-how": how, ...(i === step ? { "aria-current": "step" } : {}) }, label);
    });
    fill($("session-steps"), items);
    ["person", "signal", "rest", "begin"].forEach((name, i) => ($(`session-${name}-step`).hidden = i !== step));
    $("session-back").disabled = step === 0;
    $("session-skip").hidden = step === 3;
    say($("session-next"), step === 3 ? tr("Begin") : tr("Next"));
    [this.#drawPerson, this.#drawSignal, this.#drawRest, this.#drawBegin][step].call(this);
  }

  #drawPerson() {
    const { recording, session } = this.on.state() ?? {};
    say($("session-title"), tr("Whose session is it?"));
    $("session-record").disabled = !recording?.available;
    $("session-record").checked = this.#records;
    say($("session-record-note"), recordingNote(recording, this.#records));
    say($("session-before"), session?.began || session?.subject ? tr("Before: the session of {who}.", { who: session.subject || tr("a person without a code") }) : "");
    $("session-next").disabled = false;
    this.#lend();
  }

  #drawSignal() {
    const name = this.#sensors[this.is.sensor];
    if (!name) {
      this.#forward();
      return;
    }
    const [device, place] = PLACES[name], [what, why] = this.#fault(name);
    say($("session-title"), tr("{what} ({n} of {all})", { what: device, n: this.is.sensor + 1, all: this.#sensors.length }));
    say($("session-place"), place);
    const good = !why;
    say($("session-advice"), good ? tr("Good") : what || why);
    say($("session-why"), what ? why : "");
    $("session-signal-step").dataset.good = good;
    const score = good ? (this.on.result()?.quality[name]?.score ?? 0) : null;
    setBar($("session-meter"), "quality", score);
    say($("session-score"), tr("quality {value}", { value: good ? percent(score) : "—" }));
    say($("session-level"), name === "voice" ? this.#level : "");
    $("session-next").disabled = !good;
    this.#lend(name);
  }

  get #level() {
    const level = this.on.state()?.voice.level ?? null;
    return tr("level {value}", { value: level === null ? "—" : `${Math.round(level)} dB` });
  }

  /** What this view has asked for counts, or the run for this session; an older rest may be another person's. */
  #settleRest() {
    const rested = this.#rested();
    if (!rested) return;
    if (!this.is.rest && this.on.state()?.session.asks) this.#keep({ rest: "asked", since: -2 });
    if (this.is.rest === "asked" && this.#fresh() && !("left" in rested)) this.#keep({ rest: "over" });
  }

  /** The rest now. off: why nothing is known; mine: it is of this start; lasts: begun and not over; left: s, or null
   * before the first answer; kept: names; refused: {name: why}; older: that of somebody before. */
  #restNow() {
    const off = this.on.off(), found = this.#rested(), mine = ["asked", "over", "measured"].includes(this.is.rest);
    const rested = mine && (this.is.rest !== "asked" || this.#fresh()) ? found : null;
    const lasts = mine && !off && (!rested || "left" in rested);
    const { left = null, kept = [], refused = {} } = rested ?? {};
    return { off, mine, lasts, left, kept, refused, older: mine ? null : found };
  }

  #drawRest() {
    this.#settleRest();
    const names = this.#sensors, faults = names.map((name) => [name, ...this.#fault(name)]).filter(([, , why]) => why);
    const rest = this.#restNow(), stage = stageOf(rest), none = faults.length === names.length;
    say($("session-title"), tr("Two minutes of rest"));
    say($("session-do"), `${tr("The person lies or sits still with the eyes open, nobody touches them, nothing happens.")}${names.includes("voice") ? ` ${tr("The voice has a rest only where they speak: let them count in their usual voice.")}` : ""}`);
    say($("session-left"), LEFT[stage] ?? (rest.left === null ? tr("starting…") : minutesSeconds(Math.ceil(rest.left))));
    $("session-left").dataset.kind = stage;
    fill($("session-rest-notes"), restLines(rest, faults, none).map((line) => make("li", {}, line)));
    say($("session-rest"), stage === "done" || stage === "refused" ? tr("Measure again") : tr("Start the rest"));
    $("session-rest").hidden = rest.lasts;
    $("session-rest").disabled = none || Boolean(rest.off);
    $("session-next").disabled = stage !== "done";
    this.#lend();
  }

  /** A result has come since the rest was asked for. */
  #fresh() {
    return (this.on.result()?.index ?? -1) > (this.is.since ?? -1) + 1;
  }

  #drawBegin() {
    const { code, rest } = this.is, rested = rest === "measured" ? this.#rested() : null, run = this.on.run();
    say($("session-title"), tr("Begin"));
    const rows = [
      [tr("Person"), code || tr("no code"), !code],
      [tr("Recording"), this.#records ? tr("starts") : this.on.state()?.recording.available ? tr("none") : tr("none: the run was started without --record DIR"), !this.#records],
      ...run.modalities.map((name) => {
        const [what, why] = this.#fault(name);
        if (!run.sources[name]) return [NAMES[name], tr("no sensor in this run"), true];
        const now = why ? what || why : tr("good");
        return [NAMES[name], this.is.checked[name] ? now : tr("not checked; now {now}", { now }), Boolean(why) || !this.is.checked[name]];
      }),
      [tr("Rest"), rested?.kept ? tr("measured: {what}", { what: rested.kept.map((name) => NAMES[name]).join(", ") }) : rest === "measured" ? tr("measured") : tr("no rest measured"), rest !== "measured"],
    ];
    const parts = rows.flatMap(([name, words, lacks]) => [make("dt", {}, name), make("dd", { "data-lacks": lacks }, words)]);
    fill($("session-summary"), parts);
    $("session-next").disabled = Boolean(this.asking || this.on.off());
    if (this.on.off()) say($("session-error"), this.on.off());
    this.#lend();
  }

  /** Show a signal's own view beside its step; without a name, each goes back to its card. */
  #lend(name) {
    const wanted = { face: document.querySelector(".face-box"), eda: $("eda-chart") }[name];
    for (const [node, [parent, next]] of this.homes) {
      if (node === wanted) continue;
      parent.insertBefore(node, next);
      this.homes.delete(node);
    }
    $("session-view").hidden = !wanted;
    if (wanted && !this.homes.has(wanted)) {
      this.homes.set(wanted, [wanted.parentElement, wanted.nextSibling]);
      $("session-view").append(wanted);
    }
  }
}
