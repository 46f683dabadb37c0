import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { module, openPage } from "./page.js";

const { window } = openPage();
const text = await module("text.js");
const GERMAN = JSON.parse(readFileSync(new URL("../../jmt_edge/languages/de.json", import.meta.url), "utf8"));
text.setLanguage("de", GERMAN);
const alarms = await module("alarms.js"), values = await module("values.js"), { brief } = values;
const SPACE = "\u00a0";

/** Run `work` in English. */
function inEnglish(work) {
  text.setLanguage("en");
  work();
  text.setLanguage("de", GERMAN);
}

test("a sentence is its own key, with values in its places", () => {
  assert.equal(text.tr("{what} since {time}", { what: "Kamera hängt", time: "13:02" }), "Kamera hängt seit 13:02");
  assert.equal(text.tr("{what} since {time}", { what: "{time}", time: "13:02" }), "{time} seit 13:02", "a value is no template");
  assert.equal(text.tr("not in the catalogue {n}", { n: 0 }), "not in the catalogue 0");
  assert.equal(text.tr("constructor"), "constructor");
  inEnglish(() => assert.equal(text.tr("{n} times", { n: 3 }), "3 times"));
});

test("the plural follows the number", () => {
  const seen = (n) => text.trn("{seen} of {n} rating ≥ {limit} seen", "{seen} of {n} ratings ≥ {limit} seen", n, { seen: 1, limit: 7 });
  assert.deepEqual([seen(1), seen(9)], ["1 von 1 Angabe ≥ 7 erkannt", "1 von 9 Angaben ≥ 7 erkannt"]);
  inEnglish(() => assert.deepEqual([seen(1), seen(9)], ["1 of 1 rating ≥ 7 seen", "1 of 9 ratings ≥ 7 seen"]));
});

test("sentences of the server are known by their templates, with their numbers, and else stay", () => {
  assert.equal(text.translated("face too bright in 5 of 9 frames"), "Gesicht zu hell in 5 von 9 Bildern");
  assert.equal(text.translated("no camera frame for 1.2 s"), "seit 1,2 s kein Kamerabild");
  assert.equal(text.translated("Pain probability ≥ 70%"), `Schmerzwahrscheinlichkeit ≥${SPACE}70${SPACE}%`);
  assert.equal(text.translated("sensor lost: /dev/video0 is gone"), "Sensor fehlt: /dev/video0 is gone");
  assert.equal(text.translated("no usable modality: face: no face; eda: no source"), "kein Signal verwendbar: Gesicht: kein Gesicht; EDA: keine Quelle");
  assert.equal(text.translated("from rest: EDA +1.30 µS (2.1 SD), voice has no rest (vocal, not speech)"), "zur Ruhe: EDA +1,30 µS (2,1 SD), Stimme ohne Ruhewert (Laute, aber keine Sprache)");
  assert.equal(text.translated("a sentence that nobody has translated"), "a sentence that nobody has translated");
  assert.equal(text.translated(""), "");
  assert.equal(text.translated(undefined), undefined);
  const long = `no face${" in 5 of 9 frames".repeat(200)}`;
  assert.equal(text.translated(long), long);
  inEnglish(() => assert.equal(text.translated("no face"), "no face"));
});

test("of a message only its sentences are translated, never codes, names or what a person wrote", () => {
  const message = {
    type: "state", t: 1.5, sensors: { face: { lost: "silent, no samples for 1.2 s", state: "lost" } }, ended: false,
    alarms: { alarms: [{ kind: "technical", text: "Camera lost", detail: "no face" }] }, marks: [{ text: "no face", rating: null }],
    rest: { refused: { eda: "too few windows" } }, uncertainty: { coverage: 0.9, pain: ["no", "yes"] }, actions_words: ["AU 12: 1.2 (of 5)", "no face"],
  };
  const german = text.inLanguage(message);
  assert.deepEqual(german, {
    ...message, sensors: { face: { lost: "liefert nichts, seit 1,2 s keine Daten", state: "lost" } },
    alarms: { alarms: [{ kind: "technical", text: "Camera lost", detail: "kein Gesicht" }] },
    rest: { refused: { eda: "zu wenige Fenster" } }, uncertainty: { coverage: 0.9, pain: ["nein", "ja"] }, actions_words: ["AU 12: 1,2 (von 5)", "kein Gesicht"],
  });
  inEnglish(() => assert.equal(text.inLanguage(message), message));
});

test("numbers, shares and times are of the locale", () => {
  const all = () => [text.number(1.256, 2), text.plain(0.5), text.plain(1234), text.signed(-0.125), text.percent(0.704), text.percentParts(0.7), text.listed(["a", "b"])];
  assert.deepEqual(all(), ["1,26", "0,5", "1234", "−0,13", `70${SPACE}%`, ["70", `${SPACE}%`], "a und b"]);
  inEnglish(() => assert.deepEqual(all(), ["1.26", "0.5", "1234", "−0.13", "70%", ["70", "%"], "a and b"]));
  const at = new Date(2026, 10, 27, 23, 5, 9);
  const clock = () => [text.clockTime(at / 1000, false), text.clockTime(at / 1000, true)];
  assert.deepEqual(clock(), ["23:05", "23:05:09"]);
  inEnglish(() => assert.deepEqual(clock(), ["23:05", "23:05:09"]));
  assert.equal(text.dateTime(at.toISOString()), "27.11.2026, 23:05:09");
});

test("the page's modules speak the language", () => {
  const alarm = { text: "Pain probability was ≥ 70%", kind: "physiological", priority: "high", state: "latched", from: 0, to: 60, times: 2, peak: 0.95, no_data: false };
  assert.match(alarms.sentence(alarm), /^Schmerzwahrscheinlichkeit war ≥\s70\s% von \d\d:\d\d bis \d\d:\d\d, 2-mal, Spitze 95\s%$/);
  assert.equal(alarms.alarmNotes(alarm, true), "Person · hohe Priorität · vorbei, nicht quittiert");
  assert.equal(values.conductance(4.567), "4,57");
  assert.equal(brief(text.translated("no usable modality: face: no face")), "kein Signal verwendbar, siehe Signale");
});

test("every text of an element is translated, but for what is marked", () => {
  const { document } = window, body = document.body;
  body.innerHTML = '<p title="Alarms">\n  not for clinical\n use <b translate="no" title="Alarms">Alarms</b><input placeholder="Note (m)"></p><script>Alarms</script>';
  text.translateTree(body);
  const [p] = body.children;
  assert.equal(p.title, "Alarme");
  assert.equal(p.firstChild.data, "\n  nicht für den klinischen Einsatz ");
  assert.equal(p.children[0].outerHTML, '<b translate="no" title="Alarms">Alarms</b>');
  assert.equal(p.children[1].placeholder, "Notiz (m)");
  assert.equal(body.querySelector("script").textContent, "Alarms");
});

test("the address chooses the language, then the last choice, then the browser; English is the last resort", () => {
  const cases = [
    ["?lang=de", "en", ["en-US"], "de"], ["?lang=fr", "de", ["en-US"], "de"], ["", "en", ["de-DE"], "en"], ["", null, ["fr-FR", "de-AT", "en"], "de"],
    ["", null, ["fr"], "en"], ["", null, [], "en"], ["?lang=constructor", "toString", [], "en"],
  ];
  for (const [search, kept, preferred, code] of cases) assert.equal(text.chosen(search, kept, preferred), code, `${search} ${kept}`);
});
