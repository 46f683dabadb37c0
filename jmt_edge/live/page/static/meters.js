// Meters: a bar with its name and its number.

import { make, say } from "./dom.js";
import { meterPercent } from "./signals.js";
import { tr } from "./text.js";
import { NONE } from "./values.js";

const KINDS = { quality: tr("quality"), attention: tr("attention"), level: tr("level") };
const ENDS = { "aria-valuemin": 0, "aria-valuemax": 100 };

/** The meter of `kind`, without a value. */
export function meter(kind) {
  const label = make("span", { class: "meter-label" }, KINDS[kind]), bar = make("div", { class: `meter ${kind}` }, make("i"));
  const cell = make("div", { class: "meter-cell", "data-kind": kind }, label, bar, make("b", {}, NONE));
  setMeter(cell, null, NONE);
  return cell;
}

/** The bar of a meter. part: 0 to 1, or null without a value: then it is no meter to a screen reader, which must have
 * one. */
export function setBar(bar, kind, part) {
  const shown = meterPercent(part), empty = part === null;
  bar.querySelector("i").style.width = `${shown}%`;
  bar.setAttribute("role", empty ? "img" : "meter");
  bar.setAttribute("aria-label", empty ? tr("{what}: no data", { what: KINDS[kind] }) : KINDS[kind]);
  for (const [name, value] of Object.entries({ ...ENDS, "aria-valuenow": shown })) {
    if (empty) bar.removeAttribute(name);
    else bar.setAttribute(name, value);
  }
}

/** The whole meter. part: as of its bar. */
export function setMeter(cell, part, label) {
  setBar(cell.querySelector(".meter"), cell.dataset.kind, part);
  say(cell.querySelector("b"), label);
}
