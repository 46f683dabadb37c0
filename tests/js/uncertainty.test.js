import assert from "node:assert/strict";
import { test } from "node:test";
import { module } from "./page.js";

const { signed } = await module("text.js");
const { from, sure, whatIf } = await module("uncertainty.js");

const result = {
  used: ["face", "eda"], quality: { face: {}, eda: {} },
  uncertainty: { coverage: 0.9, pain: ["no", "yes"], valence: [-0.483, 1], arousal: [-0.94, 0.61] },
  without: { face: { pain: 0.804, valence: -0.1, arousal: 0.2 }, eda: { pain: 0.1, valence: 0, arousal: 0.333 } },
};

test("numbers from -1 to 1 have their sign, with a true minus", () => {
  assert.deepEqual([0.31, -0.483, 0].map(signed), ["+0.31", "−0.48", "+0.00"]);
});

test("a number says what it comes from, and what it lacks", () => {
  assert.equal(from(result), "from face + EDA");
  assert.equal(from({ used: ["face"], quality: { face: {}, voice: {}, eda: {} } }), "from face, without voice and EDA");
});

test("and how sure it is: a set for pain, intervals for affect", () => {
  assert.equal(sure(result, ["pain"], ""), "90%: no or yes");
  assert.equal(sure(result, ["valence", "arousal"], ""), "90%: valence −0.48 to +1.00, arousal −0.94 to +0.61");
});

test("what is not known is said so, with the run's reason", () => {
  assert.equal(sure({ ...result, uncertainty: null }, ["pain"], "90%"), "uncertainty not known");
  assert.equal(sure({ ...result, uncertainty: null }, ["pain"], "not known: the bundle has none"), "uncertainty not known: the bundle has none");
});

test("what it would be without each signal", () => {
  assert.equal(whatIf(result, ["pain"]), "without face 80%; without EDA 10%");
  assert.equal(whatIf(result, ["valence", "arousal"]), "without face −0.10, +0.20; without EDA +0.00, +0.33");
  assert.equal(whatIf({ used: ["face"] }, ["pain"]), "");
});
