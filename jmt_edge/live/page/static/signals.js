// What the line of a signal says.

import { tr } from "./text.js";
import { NONE } from "./values.js";

const FLOOR = -90; // dBFS, the left end of the meter of the voice's level

/** A good signal: whose face it is, after a change, and how that person lies in the picture. */
const person = ({ track, turn }) => [tr("good"), track > 1 ? tr("person {n}", { n: track }) : "", turn ? tr("turned by {n}°", { n: turn }) : ""].filter(Boolean).join(", ");

/** What a result says of a signal: its quality, undefined without a result, and its share of the attention, or null. */
export const measured = (result, name) => ({ quality: result?.quality[name], share: result?.attention[name] ?? null });

/** The verdict on a signal. quality: of the newest result; lost: why there is none.
 * Returns {ok, said, more}: `more` follows `said`, where there is room. */
export function verdictOf(quality, lost) {
  if (lost) {
    const at = lost.indexOf(", ");
    return { ok: false, said: `${NONE} ${at < 0 ? lost : lost.slice(0, at)}`, more: at < 0 ? "" : lost.slice(at) };
  }
  const ok = Boolean(quality?.ok);
  return { ok, said: !quality ? NONE : ok ? person(quality) : quality.reason, more: "" };
}

/** A share (0 to 1) as a meter's whole percent. */
export const meterPercent = (part) => (part === null ? 0 : Math.round(Math.min(1, Math.max(0, part)) * 100));

/** A sound level in dBFS as a share of its meter. */
export const levelShare = (level) => (level === null ? null : (level - FLOOR) / -FLOOR);
