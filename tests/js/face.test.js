import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { module, openPage, settled, size } from "./page.js";

const { window, pens } = openPage();
const decoding = [];
globalThis.createImageBitmap = (blob) => new Promise((done) => decoding.push([blob, () => done({ width: 320, height: 240, close() {} })]));
const { FaceView } = await module("face.js");

let view, pen;
beforeEach(() => {
  decoding.length = 0;
  const canvas = window.document.createElement("canvas");
  size(canvas, 400, 240);
  view = new FaceView(canvas);
  canvas.getContext("2d");
  pen = pens.get(canvas);
});

function message(box = [0.25, 0.25, 0.75, 0.75], byte = 1) {
  const buffer = new ArrayBuffer(41), data = new DataView(buffer);
  box.forEach((v, i) => data.setFloat32(16 + 4 * i, v, true));
  data.setUint8(40, byte);
  return buffer;
}

async function decode() {
  decoding.shift()[1]();
  await settled();
}

test("the picture keeps its shape, centred, with the box about the face", async () => {
  view.frame(message());
  await decode();
  assert.deepEqual(pen.of("drawImage")[0].slice(1), [40, 0, 320, 240]);
  assert.deepEqual(pen.of("strokeRect"), [[120, 60, 160, 120]]);
  assert.equal(view.canvas.dataset.box, "true");
});

test("without a face there is no box", async () => {
  view.frame(message([0, 0, 0, 0]));
  await decode();
  assert.deepEqual([pen.of("drawImage").length, pen.of("strokeRect").length], [1, 0]);
});

test("of pictures that come while one is decoded only the newest is drawn", async () => {
  for (const byte of [1, 2, 3]) view.frame(message(undefined, byte));
  await decode();
  const [[blob]] = decoding;
  assert.deepEqual([...new Uint8Array(await blob.arrayBuffer())], [3]);
  await decode();
  assert.deepEqual([decoding.length, view.shown], [0, 2]);
});

test("a picture that is decoded after the face was hidden is not shown", async () => {
  view.frame(message());
  view.off = true;
  view.clear();
  await decode();
  assert.deepEqual([pen.of("drawImage").length, view.shown, view.canvas.dataset.box], [0, 0, "false"]);
});
