// What a number comes from and how sure it is, in words: `from face + EDA, without voice; 90%: yes`.

const NAMES = { face: "face", voice: "voice", eda: "EDA" };

export const signed = (v) => (v < 0 ? "−" : "+") + Math.abs(v).toFixed(2);
const value = (output, v) => (output === "pain" ? `${Math.round(v * 100)}%` : signed(v));
const percent = (part) => `${Math.round(part * 100)}%`;

/** The modalities that a result comes from, and those that it lacks. */
export function from({ used, quality }) {
  const lacks = Object.keys(quality).filter((name) => !used.includes(name));
  const named = (names, by) => names.map((name) => NAMES[name]).join(by);
  return `from ${named(used, " + ")}${lacks.length ? `, without ${named(lacks, " and ")}` : ""}`;
}

/** The set or intervals of `outputs`; promised: the run's words where a result has none. */
export function sure(result, outputs, promised) {
  const known = result.uncertainty, spans = outputs.filter((o) => known?.[o]);
  if (!spans.length) return `uncertainty ${promised.startsWith("not known") ? promised : "not known"}`;
  const one = (o) => (o === "pain" ? known.pain.join(" or ") : `${o} ${signed(known[o][0])} to ${signed(known[o][1])}`);
  return `${percent(known.coverage)}: ${spans.map(one).join(", ")}`;
}

/** What `outputs` would be without each modality. */
export function whatIf(result, outputs) {
  const rest = Object.entries(result.without ?? {});
  return rest.map(([name, without]) => `without ${NAMES[name]} ${outputs.map((o) => value(o, without[o])).join(", ")}`).join("; ");
}
