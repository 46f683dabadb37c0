// What alarms say. Nothing in these words changes with a value: that is in its card, and only there.

import { clockTime } from "./dom.js";
import { percent } from "./values.js";

const KINDS = { physiological: "person", technical: "equipment" };
const wall = (at) => clockTime(at, true); // 13:02:59
export const minutes = (at) => clockTime(at, false);

/** "from 13:02 to 13:03", with seconds where the minute is the same; "at 13:02:59" within one second. */
function during(begin, end) {
  if (wall(begin) === wall(end)) return `at ${wall(begin)}`;
  const said = minutes(begin) === minutes(end) ? wall : minutes;
  return `from ${said(begin)} to ${said(end)}`;
}

/** The text of an alarm. */
export function sentence(alarm) {
  if (alarm.to === null) return `${alarm.text} since ${minutes(alarm.from)}`;
  const parts = [`${alarm.text} ${during(alarm.from, alarm.to)}`];
  if (alarm.times > 1) parts.push(`${alarm.times} times`);
  if (alarm.peak !== null) parts.push(`peak ${percent(alarm.peak)}`);
  return parts.join(", ");
}

/** What is said beside it; kind and priority only of the first in the list. */
export function alarmNotes(alarm, first) {
  const notes = [];
  if (first) notes.push(KINDS[alarm.kind], `${alarm.priority} priority`);
  if (alarm.state === "latched") notes.push("over, not acknowledged");
  if (alarm.state === "acknowledged") notes.push("acknowledged");
  if (alarm.no_data) notes.push("no data now");
  return notes.join(" · ");
}

function notJudgedHere(run) {
  return run.replay ? `REPLAY of ${run.replay}: not live, no alarms` : "NOT LIVE: files at full speed, no alarms";
}

/** Why there can be no alarms now; empty while they are judged. seen: values.js. */
export function unjudged({ run, state, live, linked }) {
  if (state?.failed) return "Alarms unknown: the run has failed";
  if (linked === "ended" || state?.ended) return "The run has ended: no alarms";
  if (!live) return run?.realtime ? "Alarms unknown: no connection" : "No connection";
  if (!run) return "";
  if (!run.realtime) return notJudgedHere(run);
  return state ? "" : "Alarms unknown: connecting";
}

/** What is said where nothing alarms. */
export function calm(run) {
  const off = run?.alarms_off && run.outputs.includes("pain");
  if (off) return `DEMO: pain alarms off: ${run.alarms_off}`;
  return run?.demo ? "DEMO: no alarms" : "No alarms";
}

/** The priority that sounds while the link is not live: anyone relying on the sound must hear that monitoring has
 * stopped; a normal end and a replay are silent. */
export const soundOfLoss = (linked, run) => (["stale", "lost"].includes(linked) && run?.realtime ? "high" : "");
