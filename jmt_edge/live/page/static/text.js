// The language of the page. An English sentence is its own key; another language's sentences are in `languages/XX.json`,
// which the server sends. The language is known before any other module runs, and stays until the page is loaded again.

const LOCALES = { en: "en-GB", de: "de-DE" };
const KEPT = "jmt-edge-language";
const PATIENCE = 4000; // ms for the catalogue; after it the page speaks English
const MOST = 500; // sentences of the server whose translation is kept
const NUMBER = "[-−+]?(?:[\\d.:]+|…) ?%?"; // the report writes … where a number changes
const LONGEST = 600; // characters of a sentence that is compared with templates

let language = "en";
let catalogue = { decimal: ".", percent: "%", text: {}, said: {} };
let templates = []; // of the server's sentences: {pattern, names of its parts, its translation}, the most specific first
const known = new Map(); // the server's sentences -> translations
const formats = new Map();

/** Speak `code`, one of `LOCALES`, by its catalogue; English has none. */
export function setLanguage(code, entries = { decimal: ".", percent: "%", text: {}, said: {} }) {
  language = code;
  catalogue = entries;
  known.clear();
  formats.clear();
  templates = Object.entries(entries.said).filter(([sentence]) => sentence.includes("{")).map(([sentence, translation]) => {
    const names = [...sentence.matchAll(/\{(\w+)\}/g)].map(([, name]) => name), fixed = sentence.split(/\{\w+\}/);
    const pattern = fixed.map((words) => words.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
    const body = pattern.slice(1).reduce((all, words, i) => `${all}${/^n\d?$/.test(names[i]) ? `(${NUMBER})` : "(.+?)"}${words}`, pattern[0]);
    return { pattern: new RegExp(`^${body}$`, "u"), names, translation, weight: fixed.join("").length };
  }).sort((a, b) => b.weight - a.weight);
}

const filled = (sentence, values) => sentence.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
const entry = (table, sentence) => (Object.hasOwn(table, sentence) ? table[sentence] : undefined);

/** The sentence, a literal, in the page's language, with `values` in its {places}. */
export const tr = (sentence, values = {}) => filled(entry(catalogue.text, sentence) ?? sentence, values);

/** As `tr`, of the form for `n` things, which are {n} in it. */
export function trn(one, other, n, values = {}) {
  formats.get("plural") ?? formats.set("plural", new Intl.PluralRules(LOCALES[language]));
  const form = formats.get("plural").select(n) === "one" ? one : other;
  return filled(entry(catalogue.text, form) ?? form, { n, ...values });
}

// --- what the server says --------------------------------------------------------------------------------------------

const asNumber = (text) => text.replace(/(\d)\.(?=\d)/, `$1${catalogue.decimal}`).replace(/ ?%$/, catalogue.percent);

/** A part of a sentence: a number, a list, or a sentence itself. */
function part(name, text) {
  if (name === "text") return text; // what a person wrote
  if (new RegExp(`^${NUMBER}$`, "u").test(text)) return asNumber(text);
  if (name === "each") return text.split("; ").map(look).join("; ");
  if (name === "list") return text.split(/, (?![^(]*\))/).map(look).join(", ");
  return look(text);
}

function look(sentence) {
  const exact = entry(catalogue.said, sentence);
  if (exact !== undefined || sentence.length > LONGEST) return exact ?? sentence;
  for (const { pattern, names, translation } of templates) {
    const match = pattern.exec(sentence);
    if (match) return filled(translation, Object.fromEntries(names.map((name, i) => [name, part(name, match[i + 1])])));
  }
  return sentence;
}

/** A sentence of the server, which speaks English, in the page's language; one that is not in the catalogue stays. */
export function translated(sentence) {
  if (language === "en" || !sentence) return sentence;
  if (known.size >= MOST) known.clear();
  if (!known.has(sentence)) known.set(sentence, look(sentence));
  return known.get(sentence);
}

// what is a sentence wherever it lies in a message; an alarm's text is not among them, because a note has one, too
const SENTENCES = new Set([
  "reason", "advice", "lost", "detail", "alarms_off", "notice", "intended_use", "uncertainty", "rest_words", "actions_words",
  "failed", "refused", "lines", "remarks", "error", "broker",
]);

/** A message of the server with its sentences in the page's language. */
export function inLanguage(message, key = "") {
  if (language === "en") return message;
  if (typeof message === "string") return SENTENCES.has(key) ? translated(message) : message;
  if (Array.isArray(message)) return message.map((one) => inLanguage(one, key));
  if (message === null || typeof message !== "object") return message;
  return Object.fromEntries(Object.entries(message).map(([name, one]) => [name, inLanguage(one, SENTENCES.has(key) ? key : name)]));
}

// --- numbers and times -----------------------------------------------------------------------------------------------

function format(kind, options) {
  const key = `${kind.name} ${JSON.stringify(options)}`;
  if (!formats.has(key)) formats.set(key, new kind(LOCALES[language], options));
  return formats.get(key);
}

/** A number with exactly `digits` after the decimal sign. */
export const number = (value, digits = 0) =>
  format(Intl.NumberFormat, { minimumFractionDigits: digits, maximumFractionDigits: digits, useGrouping: false }).format(value);

/** A number with at most two digits after the decimal sign. */
export const plain = (value) => format(Intl.NumberFormat, { maximumFractionDigits: 2, useGrouping: false }).format(value);

/** A number with its sign, the true minus. */
export const signed = (value) => (value < 0 ? "−" : "+") + number(Math.abs(value), 2);

/** A share (0 to 1) in whole percent. */
export const percent = (share) => format(Intl.NumberFormat, { style: "percent", maximumFractionDigits: 0, useGrouping: false }).format(share);

/** [the number, the sign with its space] of `percent`. */
export function percentParts(share) {
  const whole = percent(share), at = whole.search(/\s?%$/);
  return [whole.slice(0, at), whole.slice(at)];
}

/** A Unix time as the time of day: 13:02, or 13:02:59. */
export const clockTime = (at, seconds) => format(Intl.DateTimeFormat, { timeStyle: seconds ? "medium" : "short" }).format(new Date(at * 1000));

/** An ISO 8601 time as date and time of day. */
export const dateTime = (iso) => format(Intl.DateTimeFormat, { dateStyle: "medium", timeStyle: "medium" }).format(new Date(iso));

/** Several names as in a sentence. */
export const listed = (names) => format(Intl.ListFormat, { type: "conjunction" }).format(names);

// --- the page itself -------------------------------------------------------------------------------------------------

const SHOWN = ["title", "aria-label", "placeholder", "alt"]; // attributes that a person reads or hears
const SKIPPED = ["SCRIPT", "STYLE", "NOSCRIPT"];

const other = (words) => entry(catalogue.text, words) ?? words;

/** Translate every text below `node`, but for what is marked translate="no". */
export function translateTree(node) {
  if (node.nodeType === 3) {
    node.data = node.data.replace(/\S[^]*\S|\S/, (words) => other(words.replace(/\s+/g, " ")));
    return;
  }
  if (node.nodeType !== 1 || SKIPPED.includes(node.tagName) || node.getAttribute("translate") === "no") return;
  for (const name of SHOWN) if (node.hasAttribute(name)) node.setAttribute(name, other(node.getAttribute(name)));
  for (const child of node.childNodes) translateTree(child);
}

/** The language of a page: of its address, `?lang=de`; as chosen before; or the first known one of the browser's. */
export function chosen(search, kept, preferred) {
  const asked = [new URLSearchParams(search).get("lang"), kept, ...preferred.map((tag) => tag.slice(0, 2).toLowerCase())];
  return asked.find((code) => Object.hasOwn(LOCALES, code ?? "")) ?? "en";
}

/** Speak `code` from now on: the page is loaded again. */
function choose(code) {
  localStorage.setItem(KEPT, code);
  history.replaceState(null, "", location.pathname);
  location.reload();
}

async function start() {
  const code = chosen(location.search, localStorage.getItem(KEPT), navigator.languages ?? []);
  if (new URLSearchParams(location.search).get("lang") === code) localStorage.setItem(KEPT, code);
  if (code !== "en") {
    try {
      const answer = await fetch(`/static/languages/${code}.json`, { signal: AbortSignal.timeout(PATIENCE) });
      if (!answer.ok) throw new Error(`${answer.status}`);
      setLanguage(code, await answer.json());
      translateTree(document.body);
    } catch {
      setLanguage("en"); // the values are worth more than their language
    }
  }
  document.documentElement.lang = language;
  const select = document.getElementById("language");
  if (!select) return;
  select.value = language;
  select.onchange = () => choose(select.value);
}

if (typeof document !== "undefined") await start();
