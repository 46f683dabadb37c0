// Pain ratings: one waits for a few seconds in which it can be undone, and can be changed or withdrawn afterwards.

import { $, make, say } from "./dom.js";
import { ask } from "./link.js";
import { closeSheet, openSheet } from "./sheet.js";
import { inLanguage, number, tr, translated, trn } from "./text.js";
import { markWords } from "./values.js";

export const UNDO = 5; // s until a rating is sent
const MAX_AGE = 60; // s; the server refuses older ones
const AGAIN = 2000; // ms between two tries where the server does not answer
const SAID = 12_000; // ms for which is shown that something was not stored

/** How the ratings and the estimates before them agree, in a line. found: the server's agreement, null for none. */
export function agreementWords(found) {
  if (!found) return "";
  if (!found.ratings) return tr("No ratings yet");
  const said = [];
  if (!found.enough) said.push(tr("too few ratings for a correlation ({n} of {least})", { n: found.n, least: found.least }));
  else if (found.rho === null) said.push(`n = ${found.n}`, tr("no correlation: {why}", { why: translated(found.reason) }));
  else {
    const [low, high] = found.interval ?? [];
    const width = found.interval ? tr("{low} to {high}", { low: number(low, 2), high: number(high, 2) }) : tr("no interval");
    said.push(`n = ${found.n}`, `Spearman ${number(found.rho, 2)} (${width})`);
  }
  if (found.severe && found.seen !== null) said.push(trn("{seen} of {n} rating ≥ {limit} seen", "{seen} of {n} ratings ≥ {limit} seen", found.severe, { seen: found.seen, limit: found.severe_from }));
  return said.join(" · ");
}

/** Why a rating is asked for. question: the server's, moment: words of a stream time. */
export function askWords(question, moment) {
  if (question.why === "alarm") return tr("Rate the pain: the alarm ended at {time}", { time: moment(question.since) });
  return tr("Rate the pain: every {n} min", { n: question.minutes });
}

/** A rating that waits: what becomes of it. left: s. */
export function waitingWords({ rating, corrects, shownOnly }, left) {
  const values = { rating, n: Math.ceil(left) };
  const words = rating === null ? tr("Rating withdrawn in {n} s", values) : corrects === undefined ? tr("{rating} noted in {n} s", values) : tr("Changed to {rating} in {n} s", values);
  return shownOnly ? tr("{words}, not saved", { words }) : words;
}

export class RatingPad {
  /** seen: () => ({run, state}); moment: words of a stream time; changed: () => called when `values` has changed;
   * done: called with words when all went well. */
  constructor({ seen, moment, changed, done }) {
    Object.assign(this, { seen, moment, changed, done });
    this.values = []; // [stream time, 0-10] of the ratings as corrected
    this.waiting = null; // {rating, at, corrects}: not sent yet
    this.question = null; // the same, while it is not known whether to record
    this.changing = null; // stream time of the rating that the next one takes the place of
    this.showOnly = false; // the person knows that nothing is recorded
    this.said = "";
    for (const host of [$("rating"), $("pad-buttons")]) {
      for (let i = 0; i <= 10; i++) {
        const button = make("button", { type: "button", "aria-label": tr("Pain rating {rating}", { rating: i }) }, i);
        button.onclick = () => this.rate(i);
        host.append(button);
      }
    }
    $("rate-open").onclick = () => this.open();
    $("pad").addEventListener("close", () => {
      this.changing = this.question = null;
      this.#show();
    });
    $("pad-record").onclick = () => this.#recordFirst();
    $("pad-show-only").onclick = () => this.#withoutRecording();
    $("pad-discard").onclick = () => this.undo();
    $("pad-change").onclick = () => this.change();
    $("pad-withdraw").onclick = () => this.#withdraw();
    for (const id of ["rating-undo", "pad-undo"]) $(id).onclick = () => this.undo();
    for (const id of ["rating-later", "pad-later"]) $(id).onclick = () => this.#later();
    // what waits when the page is left is sent: the person has given it
    for (const happens of ["focus", "blur"]) $("marker-text").addEventListener(happens, () => setTimeout(() => this.#show()));
    window.addEventListener("pagehide", () => this.waiting && this.#send(true));
    setInterval(() => this.#tick(), 250);
  }

  /** The run is known, perhaps again after a reconnection. */
  hello(run) {
    for (const host of [$("rating"), $("pad-buttons")]) for (const button of host.children) button.disabled = !run.realtime;
    $("rate-open").disabled = !run.realtime;
    this.#show();
  }

  /** What the server knows of the ratings. */
  known(values) {
    this.values = values;
    if (this.changing !== null && !values.some(([t]) => t === this.changing)) this.changing = null;
    const last = values[values.length - 1];
    this.fix ??= make("button", { type: "button", class: "fix", "aria-label": tr("Change or withdraw the last rating") }, tr("Change"));
    this.fix.onclick = () => this.open();
    this.fix.remove();
    if (last) $("marks").querySelector(`li[data-t="${last[0]}"]`)?.append(this.fix);
    this.#show();
    this.changed();
  }

  /** The line of a mark in the list. A correction changes the line of its rating, too. */
  line(mark) {
    if (mark.corrects !== null) $("marks").querySelector(`li[data-t="${mark.corrects}"]`)?.classList.add("corrected");
    return make("li", { "data-t": mark.t }, make("time", {}, this.moment(mark.t)), make("span", {}, markWords(mark, this.moment)));
  }

  open() {
    if (!this.seen().run?.realtime) return;
    openSheet($("pad"));
    this.#show();
  }

  /** A person says how strong the pain is now. */
  rate(rating) {
    const { run, state } = this.seen();
    if (!run?.realtime) return;
    const one = { rating, at: performance.now() };
    if (this.changing !== null) one.corrects = this.changing;
    this.changing = null;
    if (one.corrects === undefined && !state?.recording.on && !this.showOnly) {
      this.waiting = null;
      this.question = one;
      this.open();
    } else this.#wait(one);
  }

  /** Nothing of what waits is stored. */
  undo() {
    if (!this.waiting && !this.question) return;
    const { rating, corrects } = this.waiting ?? this.question;
    this.waiting = this.question = null;
    this.#done(corrects === undefined ? tr("{rating} undone", { rating }) : tr("undone"));
  }

  /** A person writes a note. */
  note() {
    $("marker").hidden = false;
    $("marker-text").focus();
  }

  /** The next rating takes the place of the last one. */
  change() {
    const last = this.values[this.values.length - 1];
    if (!last) return;
    [this.changing] = last;
    this.open();
  }

  /** The agreement beside the trend. */
  agreement(found) {
    const words = agreementWords(found), about = found ? inLanguage(found.lines, "lines").join(" ") + (found.smooth ? ` ${tr("Estimates are means over {n} s.", { n: found.smooth })}` : "") : "";
    say($("agreement"), words);
    $("agreement").hidden = !words;
    $("agreement").title = about;
  }

  /** The newest state has come. */
  update() {
    if (this.seen().state?.recording.on) this.showOnly = false;
    if (this.question?.starting && this.seen().state?.recording.on) {
      const { starting, ...one } = this.question;
      this.question = null;
      this.#wait(one);
      closeSheet();
    }
    this.#show();
  }

  #withdraw() {
    const last = this.values[this.values.length - 1];
    if (last) this.#wait({ rating: null, at: performance.now(), corrects: last[0] });
  }

  #wait(one) {
    this.question = null;
    this.waiting = { ...one, from: performance.now() }; // the question may have taken its time
    this.said = "";
    this.#show();
  }

  async #recordFirst() {
    if (!this.question) return;
    this.question.starting = performance.now();
    this.#show();
    try {
      await ask("/api/v1/recording", { on: true });
    } catch (error) {
      if (this.question) delete this.question.starting;
      this.#say(error.message);
    }
  }

  #withoutRecording() {
    this.showOnly = true;
    const one = this.question;
    if (one) this.#wait({ ...one, shownOnly: true });
    closeSheet();
  }

  #later() {
    this.dismissed = this.seen().state?.ask?.id;
    this.#show();
  }

  #left() {
    return UNDO - (performance.now() - this.waiting.from) / 1000;
  }

  #tick() {
    if (this.question?.starting && performance.now() - this.question.starting > 5000) {
      delete this.question.starting;
      this.#say(tr("the recording did not start: {why}", { why: translated(this.seen().state?.recording.state) || tr("no answer") }));
    }
    if (!this.waiting || this.waiting.sending) return;
    if (this.#left() <= 0) this.#send(false);
    else this.#show();
  }

  /** Send what waits. */
  async #send(leaving) {
    const one = this.waiting, { rating, corrects } = one;
    if (one.sending) return;
    one.sending = true;
    const value = rating === null ? {} : { rating };
    try {
      const age = Math.min(MAX_AGE, (performance.now() - one.at) / 1000);
      const [path, body] = corrects === undefined ? ["", { rating, age }] : ["/correct", { t: corrects, ...value }];
      const answer = await (await ask(`/api/v1/markers${path}`, body, { keepalive: leaving })).json();
      if (this.waiting === one) this.waiting = null;
      const what = rating === null ? tr("withdrawn") : corrects === undefined ? `${rating}` : tr("changed to {rating}", { rating });
      if (answer.recorded) this.#done(corrects === undefined ? tr("{rating} noted", { rating }) : what);
      else this.#say(tr("{what} shown here but not saved: recording is off", { what }));
    } catch (error) {
      if (this.waiting === one) this.#unsent(one, error);
    }
  }

  /** What waits was not taken: it waits on where there was no answer, until it is too old. */
  #unsent(one, error) {
    if (error.unanswered && (performance.now() - one.at) / 1000 < MAX_AGE - 5) {
      one.failed = true;
      setTimeout(() => {
        one.sending = false;
      }, AGAIN);
      this.#show();
      return;
    }
    this.waiting = null;
    const what = one.rating === null ? tr("the rating was not withdrawn") : tr("{rating} was not stored", { rating: one.rating });
    this.#say(`${what}: ${error.unanswered ? tr("the server did not answer; rate again") : error.message}`);
  }

  #done(words) {
    this.said = "";
    this.done(words);
    this.#show();
  }

  #say(words) {
    this.said = words;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.said = "";
      this.#show();
    }, SAID);
    this.#show();
  }

  /** What both pads say now: [words, share of the time that is left, what can be done]. */
  #now() {
    const { state } = this.seen(), question = state?.ask;
    if (this.waiting) {
      const left = this.#left(), words = this.waiting.failed ? tr("{what} not sent: no answer, trying again", { what: this.waiting.rating ?? tr("Withdrawal") }) : waitingWords(this.waiting, Math.max(0, left));
      return [words, Math.max(0, left / UNDO), "undo"];
    }
    if (this.said) return [this.said, null, ""];
    if (this.changing !== null) return [tr("Choose the right rating"), null, ""];
    if (question && question.id !== this.dismissed) return [askWords(question, this.moment), null, "later"];
    return ["", null, ""];
  }

  #show() {
    const [words, share, can] = this.#now();
    // it takes the place of the note, unless one is being written: then that of the buttons, and nothing is asked
    const noting = document.activeElement === $("marker-text") || $("marker-text").value !== "";
    const shown = Boolean(words) && !(can === "later" && noting);
    this.#showRow("rating", shown, words, share, can);
    this.#showRow("pad", Boolean(words), words, share, can);
    $("marker").hidden = shown && !noting;
    $("tools").hidden = shown && noting;
    $("rate-open").classList.toggle("asked", can === "later");
    this.#showPad();
  }

  #showRow(id, shown, words, share, can) {
    const row = $(`${id}-now`);
    row.hidden = !shown;
    say(row.querySelector(".words"), words);
    row.querySelector(".left").style.width = `${Math.round((share ?? 0) * 100)}%`;
    $(`${id}-undo`).hidden = can !== "undo";
    $(`${id}-later`).hidden = can !== "later";
  }

  #showPad() {
    const chosen = this.waiting?.rating ?? this.question?.rating ?? null, last = this.values[this.values.length - 1];
    for (const host of [$("rating"), $("pad-buttons")]) [...host.children].forEach((button, i) => button.setAttribute("aria-pressed", i === chosen));
    $("pad-last").hidden = !last || Boolean(this.question);
    if (last) say($("pad-last-words"), tr("Last: {rating} at {time}", { rating: last[1], time: this.moment(last[0]) }));
    $("pad-question").hidden = !this.question;
    if (this.question) this.#showQuestion(this.seen().state);
  }

  #showQuestion(state) {
    const { rating, starting } = this.question, possible = Boolean(state?.recording.available);
    const why = possible ? tr("Recording is off") : tr("This run has no recorder (--record DIR)");
    say($("pad-question-words"), starting ? tr("Starting the recording") : tr("{why}: {rating} would not be stored.", { why, rating }));
    say($("pad-record"), tr("Record, then note {rating}", { rating }));
    $("pad-record").hidden = !possible;
    $("pad-record").disabled = Boolean(starting);
  }
}
