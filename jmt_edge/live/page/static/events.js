// Every alarm of the run: a list, the signals around each, and what a person says of it.

import { Chart, broken } from "./charts.js";
import { $, make, say } from "./dom.js";
import { ask } from "./link.js";
import { closeSheet, openSheet } from "./sheet.js";
import { inLanguage, percent, tr, translated } from "./text.js";

const AGAIN = 2000; // ms between two looks at the list while it is open
const AROUND = 30, LONGEST = 300; // s shown after an event's end, and from its start on, at most
const LABELS = { true: tr("true"), false: tr("false"), unsure: tr("unsure") };
const COLOURS = { pain: "--text", valence: "--accent", arousal: "--accent-2", face: "--accent", voice: "--accent-2", eda: "--bad" };
const NAMES = { pain: tr("Pain probability"), valence: tr("Valence"), arousal: tr("Arousal"), face: tr("Face"), voice: tr("Voice"), eda: tr("EDA") };

/** When an event was, in words. moment: words of a stream time. */
export function whenWords(event, moment) {
  const from = moment(event.start), to = event.end === null ? tr("now") : moment(event.end);
  return from === to ? tr("at {time}", { time: from }) : tr("{from} to {to}", { from, to });
}

/** Peak, threshold and who acknowledged it, in words. */
export function factsOf(event, moment) {
  const facts = [];
  if (event.peak !== null) facts.push(tr("peak {value}", { value: percent(event.peak) }));
  if (event.limit !== null) facts.push(tr("threshold {value}", { value: percent(event.limit) }));
  if (event.acknowledged === null) facts.push(tr("not acknowledged"));
  else if (event.by) facts.push(tr("acknowledged {time} by {who}", { time: moment(event.acknowledged), who: event.by }));
  else facts.push(tr("acknowledged {time}", { time: moment(event.acknowledged) }));
  return facts.join(", ");
}

/** Why an event cannot be labelled now; empty where it can. */
export function unlabelled({ run, state }) {
  if (!run?.realtime) return tr("this run is not live, so it takes no labels");
  if (!state?.recording.on) return tr("recording is off, so a label would be lost");
  return "";
}

export class Events {
  /** seen: () => ({run, state}); moment: words of a stream time; clock: () => Unix time at its 0, null for none;
   * face: () => how the live face is shown. */
  constructor({ seen, moment, clock, face }) {
    Object.assign(this, { seen, moment, clock, face });
    this.events = [];
    this.rows = new Map();
    this.chosen = ""; // the event whose signals are shown
    $("events").onclick = () => this.open();
    $("event-back").onclick = () => this.#leave();
    $("event-scrub").oninput = () => this.#at(+$("event-scrub").value);
    $("event-play").onclick = () => this.#play(!this.playing);
    $("events-sheet").addEventListener("close", () => {
      clearTimeout(this.timer);
      this.#leave();
    });
    for (const [label, words] of Object.entries(LABELS)) {
      const button = make("button", { type: "button", "data-label": label }, words);
      button.onclick = () => this.#label(label);
      $("event-labels").append(button);
    }
  }

  get #isOpen() {
    return !$("events-sheet").hidden;
  }

  async open() {
    if (this.#isOpen) return closeSheet();
    openSheet($("events-sheet"));
    say($("events-note"), "");
    await this.#look();
    return undefined;
  }

  /** Another run: its events are others. */
  clear() {
    this.rows.clear();
    this.events = [];
    this.count = null;
    $("events-list").replaceChildren();
    this.#leave();
  }

  /** The newest state has come. */
  update() {
    if (!this.#isOpen) return;
    const alarms = JSON.stringify((this.seen().state?.alarms.alarms ?? []).map((alarm) => [alarm.id, alarm.state]));
    if (alarms !== this.alarms) {
      this.alarms = alarms;
      this.#look();
    }
    this.#showLabels();
  }

  async #look() {
    clearTimeout(this.timer);
    try {
      this.events = (await (await ask("/api/v1/events")).json()).events;
      this.#list();
      await this.#grow();
      if (this.failed) say($("events-note"), "");
      this.failed = false;
    } catch (error) {
      this.failed = true;
      say($("events-note"), tr("not up to date: {why}", { why: error.message }));
    }
    clearTimeout(this.timer);
    if (this.#isOpen) this.timer = setTimeout(() => this.#look(), AGAIN);
  }

  #list() {
    const newest = [...this.events].sort((a, b) => b.start - a.start);
    const rows = newest.map((event) => {
      if (!this.rows.has(event.id)) {
        const parts = ["when", "what", "facts", "said"].map((name) => make("span", { class: name }));
        const button = make("button", { type: "button" }, ...parts);
        button.onclick = () => this.show(event.id);
        this.rows.set(event.id, make("li", { class: "event", "data-id": event.id }, button));
      }
      const row = this.rows.get(event.id), [when, what, facts, said] = row.firstChild.children;
      row.dataset.kind = event.kind;
      row.dataset.over = event.end !== null;
      row.classList.toggle("chosen", event.id === this.chosen);
      say(when, whenWords(event, this.moment));
      say(what, translated(event.text));
      say(facts, factsOf(event, this.moment));
      say(said, event.label ? tr("labelled {label}", { label: LABELS[event.label] }) : "");
      return row;
    });
    const list = $("events-list"), there = [...list.children];
    if (!rows.length) list.replaceChildren(make("li", { class: "dim" }, this.seen().run?.realtime ? tr("No alarm has signalled in this run.") : tr("This run is not live: it has no alarms.")));
    else if (there.length !== rows.length || rows.some((row, i) => row !== there[i])) list.replaceChildren(...rows);
    this.#showLabels();
  }

  #leave() {
    this.#play(false);
    this.chosen = "";
    $("event").hidden = $("event-back").hidden = true;
    $("events-sheet").classList.remove("detailed");
    for (const row of this.rows.values()) row.classList.remove("chosen");
  }

  /** The signals around an event. */
  async show(id) {
    this.#play(false);
    this.chosen = id;
    this.refused = "";
    if (!(await this.#load())) return;
    $("events-sheet").classList.add("detailed");
    $("event").hidden = $("event-back").hidden = false;
    this.t = null;
    this.#charts(this.around);
    this.#list();
    this.#film();
  }

  async #load() {
    const id = this.chosen;
    let around;
    try {
      around = inLanguage(await (await ask(`/api/v1/events/${encodeURIComponent(id)}/signals`)).json());
    } catch (error) {
      say($("events-note"), error.message);
      return false;
    }
    if (this.chosen !== id || !this.#isOpen) return false;
    say($("events-note"), "");
    this.around = around;
    return true;
  }

  /** What has come since the signals were shown, until they are 30 s older than the event. */
  async #grow() {
    const { event, to } = this.around ?? {}, t = this.seen().state?.t ?? 0;
    if (!this.chosen || this.playing || $("event").hidden || (event.end !== null && to >= event.end + AROUND - 0.5) || t < to + 1) return;
    if (to < event.start + LONGEST && (await this.#load())) this.#charts(this.around);
  }

  #charts(around) {
    const { event, outputs, attention, eda, gaps } = around;
    const whole = () => [around.from, Math.max(around.to, around.from + 1)];
    const shade = () => [[event.start, event.end ?? around.to, "--red"]];
    const common = { whole, shade, clock: this.clock, left: 56, marks: () => (this.t === null ? [] : [this.t]) };
    const names = Object.keys(outputs), low = names.includes("valence") ? -1 : 0;
    const lines = () => (event.limit === null ? [] : [[event.limit, "--red"]]);
    const curve = (host, t, series, hatch, more) => {
      $(host).replaceChildren();
      const chart = new Chart($(host), { ...common, hatch: () => hatch, ...more });
      chart.set(broken([t, ...series], hatch), 0);
      return chart;
    };
    const lined = (of) => Object.keys(of).map((name) => ({ colour: COLOURS[name] }));
    this.#key("event-outputs-title", names, "");
    this.#key("event-attention-title", Object.keys(attention), tr("Attention:"));
    say($("event-eda-title"), tr("EDA ({unit})", { unit: eda.unit }));
    const hasEda = Boolean(this.seen().run?.modalities.includes("eda"));
    $("event-eda").hidden = $("event-eda-title").hidden = !hasEda;
    this.charts = [
      curve("event-outputs", around.t, Object.values(outputs), gaps.results, { series: lined(outputs), range: [low, 1], lines }),
      curve("event-attention", around.t, Object.values(attention), gaps.results, { series: lined(attention), range: [0, 1], scale: 100, unit: "%" }),
    ];
    if (hasEda) {
      const range = (a, b) => (a === null ? [0, 1] : [a - 0.1, b + 0.1]);
      this.charts.push(curve("event-eda", eda.t, [eda.v], gaps.eda, { series: [{ colour: "--accent" }], range }));
    }
  }

  /** The names of a chart's lines, each with its colour. */
  #key(id, names, before) {
    const keys = names.map((name) => make("span", { class: `key of${COLOURS[name]}` }, NAMES[name]));
    $(id).replaceChildren(before && `${before} `, ...keys);
  }

  redraw() {
    for (const chart of this.#isOpen ? (this.charts ?? []) : []) chart.redraw();
  }

  // --- labels ---
  #showLabels() {
    const event = this.events.find(({ id }) => id === this.chosen);
    if (!event || $("event").hidden) return;
    say($("event-title"), `${translated(event.text)}, ${whenWords(event, this.moment)}: ${factsOf(event, this.moment)}`);
    const why = unlabelled(this.seen());
    for (const button of $("event-labels").children) {
      button.disabled = Boolean(why);
      button.setAttribute("aria-pressed", button.dataset.label === event.label);
    }
    say($("event-reason"), why || this.refused || "");
  }

  async #label(label) {
    this.refused = "";
    try {
      await ask("/api/v1/events/label", { event: this.chosen, label });
    } catch (error) {
      this.refused = tr("not labelled: {why}", { why: error.message });
    }
    await this.#look();
    this.#showLabels();
  }

  // --- the picture ---
  #film() {
    const { recording, from: first, to: last, event } = this.around, hidden = this.face() === "hide";
    const why = !recording ? tr("No video was recorded.") : hidden ? tr("The face is hidden.") : "";
    $("event-film").hidden = $("event-time").hidden = !recording;
    $("event-frame").hidden = true;
    say($("event-film-why"), why);
    if (!recording) return;
    Object.assign($("event-scrub"), { min: first, max: last });
    this.#at(Math.min(event.start, last));
  }

  #at(t) {
    this.t = t;
    $("event-scrub").value = t;
    say($("event-time").querySelector(".words"), this.moment(t));
    for (const chart of this.charts) chart.redraw();
    this.#frame(t);
  }

  /** Of the times asked for while a picture is on its way, only the newest is asked for next. */
  async #frame(t) {
    this.wanted = t;
    if (this.loading || this.face() === "hide") return;
    this.loading = true;
    const { recording } = this.around;
    try {
      while (this.wanted !== null && this.around.recording === recording) {
        const at = this.wanted;
        this.wanted = null;
        const answer = await ask(`/api/v1/recordings/${encodeURIComponent(recording)}/frame?t=${at}&face=blur`);
        const url = URL.createObjectURL(await answer.blob()), image = $("event-frame");
        image.onload = () => URL.revokeObjectURL(url);
        image.src = url;
        image.hidden = false;
        say($("event-film-why"), "");
      }
    } catch (error) {
      $("event-frame").hidden = true;
      say($("event-film-why"), error.message);
    } finally {
      this.loading = false;
    }
  }

  #play(on) {
    clearInterval(this.clockwork);
    this.playing = on;
    say($("event-play"), on ? tr("Pause") : tr("Play"));
    $("event-play").setAttribute("aria-pressed", on);
    if (!on) return;
    this.clockwork = setInterval(() => {
      const end = +$("event-scrub").max;
      this.#at(Math.min(this.t + 0.5, end));
      if (this.t >= end) this.#play(false);
    }, 500);
  }
}
