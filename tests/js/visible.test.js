import assert from "node:assert/strict";
import { test } from "node:test";
import { Linter } from "eslint";
import { bareText } from "./visible.js";

const config = { languageOptions: { ecmaVersion: 2023, sourceType: "module" }, plugins: { page: { rules: { "bare-text": bareText } } }, rules: { "page/bare-text": "error" } };
const faults = (code) => new Linter().verify(code, [config]).map(({ message }) => message);

test("a text that a person reads is a fault wherever it is written", () => {
  for (const code of [
    'say(node, "live");', 'node.textContent = on ? "on" : tr("off");', 'text("record", `Stop ${n}`);', 'make("p", {}, "none");', 'make("p", { "aria-label": "alarm" });',
    'node.title = `peak ${n}`;', 'node.setAttribute("aria-label", "stop");', 'const why = "no connection";', 'const NAMES = { face: "Face" };', 'export const f = (n) => `${n} s ago`;',
    'parts.push("Not known");', 'ctx.fillText("arousal", 0, 0);', 'say(node, tr("a", { what: "no code" }));',
  ]) assert.equal(faults(code).length, 1, code);
});

test("what is given to tr() must be a literal", () => {
  for (const code of ["tr(words);", "tr(`a ${n}`);", 'trn("one", many, 2);', 'tr(on ? "a" : "b");']) assert.match(faults(code).join(), /takes literals/, code);
});

test("translated texts, codes and what only the machine reads are none", () => {
  for (const code of [
    'say(node, tr("no connection"));', 'trn("{n} rating", "{n} ratings", n);', 'node.className = "value none";', 'make("p", { class: "dim note", id: "a" });', 'if (state === "Not live") f();',
    'document.querySelector(".bar > [data-a]");', 'say(node, `${n} dB`);', 'say(node, "—");', 'node.setAttribute("role", "meter");', 'import { tr } from "./Text and more.js";', 'node.dataset.state = "lost";',
    'matchMedia("(prefers-color-scheme: dark)");', 'const a = { "Content-Type": 1 };',
  ]) assert.deepEqual(faults(code), [], code);
});
