import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { module, openPage, size } from "./page.js";

const { window, pens } = openPage();
const { Circumplex } = await module("circumplex.js");

let circumplex, pen;
beforeEach(() => {
  const canvas = window.document.createElement("canvas");
  window.document.body.append(canvas);
  size(canvas, 236, 236); // a radius of 100 px about 118, 118
  circumplex = new Circumplex(canvas);
  canvas.getContext("2d");
  pen = pens.get(canvas);
});

const discs = () => pen.of("arc").filter(([, , radius]) => radius === 10);

test("valence lies to the right and arousal upwards", () => {
  circumplex.push([0.5, 0.25]);
  assert.deepEqual(discs().map(([x, y]) => [x, y]), [[168, 93]]);
});

test("without data there is no point, and no line over the gap", () => {
  circumplex.set([[0, 0], null, [0.1, 0.1], [0.2, 0.2]]);
  const lines = pen.of("lineTo").slice(2); // after the two axes
  assert.equal(lines.length, 1);
  pen.calls.length = 0;
  circumplex.push(null);
  assert.deepEqual(discs(), []);
});

test("the newest 40 points are kept", () => {
  circumplex.set(Array.from({ length: 60 }, (_, i) => [i / 100, 0]));
  circumplex.push([0.9, 0]);
  assert.equal(circumplex.points.length, 40);
  assert.deepEqual(circumplex.points[0], [0.21, 0]);
});

test("the intervals are a box about the point, and what it would be without a signal are rings", () => {
  circumplex.about([[-0.5, 0.5], [-0.2, 0.4]], [[0.1, 0], [0.2, 0]]);
  circumplex.push([0, 0]);
  const [[left, top, width, height]] = pen.of("strokeRect");
  assert.deepEqual([left, top, width, height].map((v) => Math.round(v)), [68, 78, 100, 60]);
  assert.equal(pen.of("arc").filter(([, , radius]) => radius === 4).length, 2);
  pen.calls.length = 0;
  circumplex.about(null, []);
  circumplex.draw();
  assert.deepEqual(pen.of("strokeRect"), []);
});

test("words are written only where there is room, and nothing on a hidden canvas", () => {
  const words = () => pen.of("fillText").map(([word]) => word);
  circumplex.draw();
  assert.deepEqual(words(), ["arousal", "valence", "excited", "content", "bored", "distressed"]);
  pen.calls.length = 0;
  size(circumplex.canvas, 180, 180);
  circumplex.draw();
  assert.deepEqual(words(), ["arousal", "valence"]);
  pen.calls.length = 0;
  size(circumplex.canvas, 0, 0);
  circumplex.draw();
  assert.deepEqual(pen.calls, []);
});
