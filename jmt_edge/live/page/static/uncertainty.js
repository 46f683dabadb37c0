// What a number comes from and how sure it is, in words: `from face + EDA, without voice; 90%: yes`.

import { listed, percent, signed, tr } from "./text.js";
import { SIGNALS } from "./values.js";

export const OUTPUTS = { pain: tr("pain"), valence: tr("valence"), arousal: tr("arousal") };
const value = (output, v) => (output === "pain" ? percent(v) : signed(v));

/** The modalities that a result comes from, and those that it lacks. */
export function from({ used, quality }) {
  const lacks = Object.keys(quality).filter((name) => !used.includes(name));
  const what = used.map((name) => SIGNALS[name]).join(" + "), without = listed(lacks.map((name) => SIGNALS[name]));
  return lacks.length ? tr("from {what}, without {without}", { what, without }) : tr("from {what}", { what });
}

/** The set or intervals of `outputs`; promised: the run's words where a result has none. */
export function sure(result, outputs, promised) {
  const known = result.uncertainty, spans = outputs.filter((o) => known?.[o]);
  if (!spans.length) return tr("uncertainty {what}", { what: /^\d/.test(promised) ? tr("not known") : promised });
  const span = ([low, high]) => tr("{low} to {high}", { low: signed(low), high: signed(high) });
  const one = (o) => (o === "pain" ? known.pain.join(` ${tr("or")} `) : `${OUTPUTS[o]} ${span(known[o])}`);
  return `${percent(known.coverage)}: ${spans.map(one).join(", ")}`;
}

/** What `outputs` would be without each modality. */
export function whatIf(result, outputs) {
  const rest = Object.entries(result.without ?? {});
  return rest.map(([name, without]) => tr("without {what} {value}", { what: SIGNALS[name], value: outputs.map((o) => value(o, without[o])).join(", ") })).join("; ");
}
