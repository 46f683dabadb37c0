// Past recordings: list, open, scrub, export.

import { Chart, broken } from "./charts.js";
import { $, make } from "./dom.js";
import { openDialog } from "./layers.js";
import { ask } from "./link.js";
import { dateTime, inLanguage, number, percent, tr, translated } from "./text.js";
import { OUTPUTS, from, sure, whatIf } from "./uncertainty.js";
import { NONE, SIGNALS, markWords } from "./values.js";

const COLOURS = { pain: "--red", valence: "--accent", arousal: "--accent-2" }; // style.css: .of-pain and so on
const time = (t) => `${Math.floor(t / 60)}:${number(t % 60, 1).padStart(4, "0")}`;
const said = (output, value) => `${OUTPUTS[output]} ${output === "pain" ? percent(value) : number(value, 2)}`;

export class Recordings {
  constructor(faceMode) {
    this.faceMode = faceMode; // () => how the live face is shown
    $("viewer-back").onclick = () => this.open();
    $("viewer-scrub").oninput = () => this.#show(+$("viewer-scrub").value);
    $("viewer-export").onclick = () => this.#try(() => this.#export());
    $("viewer-play").onclick = () => this.#play(!this.playing);
    $("recordings-dialog").addEventListener("close", () => this.#play(false));
  }

  open() {
    openDialog($("recordings-dialog"));
    return this.#try(async () => {
      this.#play(false);
      $("viewer").hidden = true;
      $("recordings-list").hidden = false;
      const { recordings } = await (await ask("/api/v1/recordings")).json();
      const rows = recordings.map((r) => {
        if (r.error) {
          const why = make("span", { class: "recording-error" }, tr("Cannot be opened: {why}", { why: translated(r.error) }));
          return make("div", { class: "recording damaged", "data-id": r.id }, make("strong", {}, r.id), why);
        }
        const note = [r.task, r.bundle, r.closed ? (r.complete ? "" : tr("incomplete")) : tr("open")].filter(Boolean).join(", ");
        const button = make(
          "button", { type: "button", class: "recording", "data-id": r.id },
          make("strong", {}, r.id), make("span", {}, dateTime(r.created)), make("span", { class: "dim" }, note),
        );
        button.onclick = () => this.view(r.id);
        return button;
      });
      $("recordings-list").replaceChildren(...rows);
      if (!rows.length) $("recordings-list").textContent = tr("No recordings yet. Start one with Record, or run with --record DIR.");
    });
  }

  view(id) {
    return this.#try(async () => {
      const recording = inLanguage(await (await ask(`/api/v1/recordings/${encodeURIComponent(id)}`)).json());
      this.recording = recording;
      $("recordings-list").hidden = true;
      $("viewer").hidden = false;
      $("viewer-name").textContent = `${recording.id} (${recording.task}${recording.demo ? `, ${tr("demo weights")}` : ""})`;
      $("viewer-remarks").replaceChildren(...recording.remarks.map((text) => make("span", {}, text)));
      this.#charts(recording);
      const marks = recording.marks.map((m) => {
        const button = make("button", { type: "button" }, `${time(m.t)}  ${markWords(m, time)}`);
        button.onclick = () => this.#show(m.t);
        return make("li", {}, button);
      });
      $("viewer-marks").replaceChildren(...marks);
      const scrub = $("viewer-scrub"), ts = recording.results.map((r) => r.t);
      scrub.min = ts[0] ?? 0;
      scrub.max = ts[ts.length - 1] ?? 0;
      this.#show(+scrub.min);
    });
  }

  #charts(recording) {
    for (const host of [$("viewer-chart"), $("viewer-eda")]) host.replaceChildren();
    const cursor = () => [this.t ?? 0], marks = () => [...recording.marks.map((m) => m.t), ...cursor()];
    const ends = [...recording.results, ...recording.marks].map((r) => r.t).concat(recording.eda.t);
    const begin = ends.length ? ends.reduce((a, b) => Math.min(a, b)) : 0, end = ends.reduce((a, b) => Math.max(a, b), begin + 1);
    const whole = () => [begin, end]; // of both charts
    const low = recording.outputs.includes("valence") ? -1 : 0;
    this.chart = new Chart($("viewer-chart"), {
      series: recording.outputs.map((name) => ({ colour: COLOURS[name] })), range: [low, 1], marks, whole,
    });
    $("viewer-chart").hidden = !recording.results.length;
    const t = recording.results.map((r) => r.t);
    const values = recording.outputs.map((name) => recording.results.map((r) => r.outputs?.[name] ?? null));
    this.chart.set(broken([t, ...values], recording.gaps.results), 0);
    this.eda = null;
    $("viewer-eda").hidden = !recording.eda.t.length;
    if (recording.eda.t.length) {
      this.eda = new Chart($("viewer-eda"), {
        series: [{ colour: "--accent" }], range: (a, b) => (a === null ? [0, 1] : [a - 0.1, b + 0.1]),
        unit: ` ${recording.eda.unit}`, marks, whole,
      });
      this.eda.set(broken([recording.eda.t, recording.eda.v], recording.gaps.eda), 0);
    }
  }

  #show(t) {
    const { recording } = this;
    this.t = t;
    $("viewer-scrub").value = t;
    $("viewer-time").textContent = time(t);
    const past = recording.results.filter((r) => r.t <= t + 1e-6), r = past[past.length - 1] ?? recording.results[0];
    this.#values(r);
    this.chart?.redraw();
    this.eda?.redraw();
    if (recording.video) this.#frame(t);
    else $("viewer-frame").hidden = true;
  }

  #values(r) {
    const { outputs } = this.recording;
    const values = r?.outputs ? outputs.map((n) => make("span", { class: `of-${n}` }, said(n, r.outputs[n]))) : [NONE];
    $("viewer-value").replaceChildren(...values);
    $("viewer-from").textContent = r?.outputs ? `${from(r)}; ${sure(r, outputs, tr("not known"))}` : "";
    $("viewer-from").title = r?.outputs ? whatIf(r, outputs) : "";
    $("viewer-reason").textContent = r ? r.reason : tr("this recording has no results");
    const parts = Object.entries(r?.quality ?? {}).flatMap(([name, q]) => {
      const verdict = q.ok ? tr("ok, attention {share}", { share: percent(r.attention[name] ?? 0) }) : `${NONE} ${q.reason}`;
      return [make("dt", {}, SIGNALS[name]), make("dd", {}, verdict)];
    });
    $("viewer-quality").replaceChildren(...parts);
  }

  async #frame(t) {
    this.wanted = t;
    if (this.loading) return;
    this.loading = true;
    try {
      while (this.wanted !== null) {
        const now = this.wanted, mode = this.faceMode();
        this.wanted = null;
        const image = $("viewer-frame");
        if (mode === "hide") {
          image.hidden = true;
          continue;
        }
        const answer = await ask(`/api/v1/recordings/${encodeURIComponent(this.recording.id)}/frame?t=${now}&face=${mode}`);
        const url = URL.createObjectURL(await answer.blob());
        image.onload = () => URL.revokeObjectURL(url);
        image.src = url;
        image.hidden = false;
      }
    } catch {
      $("viewer-frame").hidden = true;
    } finally {
      this.loading = false;
    }
  }

  #play(on) {
    clearInterval(this.timer);
    this.playing = on;
    $("viewer-play").textContent = on ? tr("Pause") : tr("Play");
    $("viewer-play").setAttribute("aria-pressed", on);
    if (!on) return;
    this.timer = setInterval(() => {
      const next = this.t + 0.25, end = +$("viewer-scrub").max;
      this.#show(Math.min(next, end));
      if (next >= end) this.#play(false);
    }, 250);
  }

  async #export() {
    const answer = await ask(`/api/v1/recordings/${encodeURIComponent(this.recording.id)}/export`);
    const url = URL.createObjectURL(await answer.blob());
    make("a", { href: url, download: `${this.recording.id}.zip` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  }

  async #try(work) {
    $("recordings-error").textContent = "";
    try {
      await work();
    } catch (error) {
      $("recordings-error").textContent = error.message;
    }
  }
}
