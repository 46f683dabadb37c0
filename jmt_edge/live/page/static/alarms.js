// What alarms say. Nothing in these words changes with a value: that is in its card, and only there.

import { clockTime, percent, tr, translated } from "./text.js";

const KINDS = { physiological: tr("person"), technical: tr("equipment") };
const PRIORITIES = { high: tr("high priority"), medium: tr("medium priority"), low: tr("low priority") };
const wall = (at) => clockTime(at, true); // 13:02:59
export const minutes = (at) => clockTime(at, false);

/** "… from 13:02 to 13:03", with seconds where the minute is the same; "… at 13:02:59" within one second. */
function during(what, begin, end) {
  if (wall(begin) === wall(end)) return tr("{what} at {time}", { what, time: wall(begin) });
  const said = minutes(begin) === minutes(end) ? wall : minutes;
  return tr("{what} from {from} to {to}", { what, from: said(begin), to: said(end) });
}

/** The text of an alarm. */
export function sentence(alarm) {
  const what = translated(alarm.text);
  if (alarm.to === null) return tr("{what} since {time}", { what, time: minutes(alarm.from) });
  const parts = [during(what, alarm.from, alarm.to)];
  if (alarm.times > 1) parts.push(tr("{n} times", { n: alarm.times }));
  if (alarm.peak !== null) parts.push(tr("peak {value}", { value: percent(alarm.peak) }));
  return parts.join(", ");
}

/** What is said beside it; kind and priority only of the first in the list. */
export function alarmNotes(alarm, first) {
  const notes = [];
  if (first) notes.push(KINDS[alarm.kind], PRIORITIES[alarm.priority]);
  if (alarm.state === "latched") notes.push(tr("over, not acknowledged"));
  if (alarm.state === "acknowledged") notes.push(tr("acknowledged"));
  if (alarm.no_data) notes.push(tr("no data now"));
  return notes.join(" · ");
}

function notJudgedHere(run) {
  return run.replay ? tr("REPLAY of {name}: not live, no alarms", { name: run.replay }) : tr("NOT LIVE: files at full speed, no alarms");
}

/** Why there can be no alarms now; empty while they are judged. seen: values.js. */
export function unjudged({ run, state, live, linked }) {
  if (state?.failed) return tr("Alarms unknown: the run has failed");
  if (linked === "ended" || state?.ended) return tr("The run has ended: no alarms");
  if (!live) return run?.realtime ? tr("Alarms unknown: no connection") : tr("No connection");
  if (!run) return "";
  if (!run.realtime) return notJudgedHere(run);
  return state ? "" : tr("Alarms unknown: connecting");
}

/** What is said where nothing alarms. */
export function calm(run) {
  const off = run?.alarms_off && run.outputs.includes("pain");
  if (off) return tr("DEMO: pain alarms off: {why}", { why: run.alarms_off });
  return run?.demo ? tr("DEMO: no alarms") : tr("No alarms");
}

/** The priority that sounds while the link is not live: anyone relying on the sound must hear that monitoring has
 * stopped; a normal end and a replay are silent. */
export const soundOfLoss = (linked, run) => (["stale", "lost"].includes(linked) && run?.realtime ? "high" : "");
