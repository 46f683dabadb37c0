// What the tiles of beds and the banner above them say: words and orders, nothing of the page.

import { tr, translated } from "/static/text.js";

const ORDER = ["high", "medium", "low"];
const SHORT = { face: tr("face"), voice: tr("voice"), eda: tr("EDA") };

const rank = (alarm) => ORDER.indexOf(alarm.priority);

/** The alarms of a bed and the station's own about it, the gravest first: [{priority, text, signals}]. */
export function alarmsOf(bed) {
  const own = bed.own.map((what) => ({
    priority: "medium",
    text: what === "lost" ? tr("Bed lost") : tr("Two units send under this name"),
    detail: what === "lost" ? bed.lost : "",
    signals: bed.signals,
  }));
  const theirs = bed.alarms.map((alarm) => ({
    priority: alarm.priority,
    text: translated(alarm.text),
    signals: alarm.state === "active" || alarm.state === "latched",
  }));
  return [...own, ...theirs].sort((a, b) => rank(a) - rank(b) || b.signals - a.signals);
}

/** The gravest alarm of each bed and the station's own, those that signal first. found: the answer of /api/v1/beds. */
export function gravest(found) {
  const all = found.beds.flatMap((bed) => alarmsOf(bed).slice(0, 1).map((alarm) => ({ ...alarm, bed: bed.name })));
  for (const alarm of found.alarms) {
    if (alarm.id === "broker") {
      all.push({ priority: alarm.priority, text: translated(alarm.text), signals: alarm.state !== "acknowledged", bed: "" });
    }
  }
  return all.sort((a, b) => b.signals - a.signals || rank(a) - rank(b));
}

/** The sentence of a tile. alarm: the bed's gravest, if there is one. */
export function sentence(bed, alarm) {
  const why = bed.state === "ended" ? tr("The run has ended") : bed.state === "starting" ? tr("no result yet") : bed.reason;
  const alarms = alarm && [alarm.text, alarm.detail].filter(Boolean).join(": ");
  return alarms || bed.lost || why || (bed.alarms_off ? tr("alarms off: {why}", { why: bed.alarms_off }) : "");
}

/** The signals of a bed: [{name, ok, why}]. */
export const signalsOf = (bed) =>
  Object.entries(bed.quality).map(([name, q]) => ({ name: SHORT[name] || name, ok: q.ok, why: q.reason || tr("usable") }));

/** How long a bed has not been heard; null: never. */
export function ago(seconds) {
  if (seconds === null) return tr("never heard");
  if (seconds < 60) return tr("{n} s ago", { n: Math.round(seconds) });
  return seconds < 3600 ? tr("{n} min ago", { n: Math.floor(seconds / 60) }) : tr("{n} h ago", { n: Math.floor(seconds / 3600) });
}
