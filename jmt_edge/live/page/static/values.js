// What values say, and why there are none: words and numbers, nothing of the page. seen: {run, state, live, linked}, what
// the page knows: what does not change during a run, the newest state, whether the link is live, and its state's name.

import { number, percent, tr } from "./text.js";

export const NONE = "—";
export const NAMES = { face: tr("Face"), voice: tr("Voice"), eda: tr("EDA") };
export const SIGNALS = { face: tr("face"), voice: tr("voice"), eda: tr("EDA") }; // within a sentence

/** The label of a run whose data is from another time; empty for a live run. */
export const notLive = (run) => (!run || run.realtime ? "" : run.replay ? tr("Replay") : tr("Not live"));

/** Why nothing older may still be shown; empty while the run answers. */
export function cutOff({ run, state, live, linked }) {
  if (linked === "ended" || state?.ended) return state?.failed ? tr("the run has failed") : tr("the run has ended");
  if (!live) return tr("no connection");
  if (state?.stale) {
    const n = Math.round(state.age);
    return run?.replay ? tr("nothing in the recording for {n} s", { n }) : tr("no results for {n} s", { n });
  }
  return "";
}

/** Why there is no value; empty while the newest result is valid. */
export const stalled = (seen, result) => cutOff(seen) || (result ? "" : tr("waiting for the first result"));

/** A reason short enough for a card: the problems of each signal are in the signals' card. */
export const brief = (why) => (why.startsWith(tr("no usable modality")) ? tr("no usable modality, see Signals") : why);

/** From where on the pain probability alarms, beside its number. settings: the alarm's, null before they are known. */
export function limitWords(run, settings) {
  if (!run.realtime) return tr("no alarms");
  if (run.alarms_off) return tr("alarms off: {why}", { why: run.alarms_off });
  if (!settings) return "";
  return settings.enabled ? tr("alarm from {limit} for {n} s", { limit: percent(settings.limit), n: settings.delay }) : tr("alarm off");
}

/** Whether the pain probability is one that alarms. */
export const over = (run, settings, pain) => Boolean(run.realtime && !run.alarms_off && settings?.enabled && pain >= settings.limit);

/** Skin conductance in µS, or the sensor's own unit. */
export const conductance = (value) => (value === null ? NONE : number(value, value < 10 ? 2 : 1));

/** What is wrong with a signal that has a value all the same. */
export const fault = (quality) => (quality && !quality.ok ? quality.reason : "");

/** Reactions (SCRs) that peaked in the last minute before `t`. scrs: [[onset, peak], ...] in seconds. */
export const recentScrs = (scrs, t) => scrs.filter(([, peak]) => peak > t - 60).length;

/** Highest and mean of probabilities, in words. */
export function highAndMean(past) {
  if (!past.length) return [NONE, NONE];
  return [percent(past.reduce((a, b) => Math.max(a, b))), percent(past.reduce((a, b) => a + b, 0) / past.length)];
}

/** The median latency and its 95th percentile. */
export const latencyWords = (pair) => (pair ? pair.map((ms) => `${Math.round(ms)} ms`) : [NONE, NONE]);

/** A mark: its rating and its note, or what became of an earlier rating. moment: words of a stream time. */
export function markWords({ rating, text, corrects = null }, moment) {
  if (corrects === null) return [rating === null ? "" : tr("rating {rating}", { rating }), text].filter(Boolean).join(": ");
  const time = moment(corrects);
  return rating === null ? tr("rating of {time} withdrawn", { time }) : tr("rating of {time} changed to {rating}", { time, rating });
}
