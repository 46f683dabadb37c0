import assert from "node:assert/strict";
import { mock, test } from "node:test";
import { module } from "./page.js";

let now = 0;
const pulses = []; // [start s, Hz]
class Param {
  setValueAtTime() {
    return this;
  }

  linearRampToValueAtTime() {
    return this;
  }
}
globalThis.AudioContext = class {
  currentTime = 100;

  resume() {
    this.resumed = true;
  }

  createOscillator() {
    const frequency = { value: 0 };
    return { frequency, connect: (next) => next, start: (at) => pulses.push([at, frequency.value]), stop() {} };
  }

  createGain() {
    return { gain: new Param(), connect: (next) => next };
  }
};
Object.defineProperty(globalThis, "performance", { value: { now: () => now }, configurable: true });
mock.timers.enable({ apis: ["setInterval"] });
const { AlarmSound } = await module("sound.js");

function wait(seconds) {
  for (let i = 0; i < seconds * 5; i++) {
    now += 200;
    mock.timers.tick(200);
  }
  return pulses.splice(0).map(([, hertz]) => hertz);
}

test("bursts follow the priority, and repeat at its interval", () => {
  const sound = new AlarmSound();
  assert.equal(sound.toggle(), true);
  sound.set("high");
  assert.deepEqual(wait(1), Array(5).fill(880));
  assert.deepEqual(wait(2), []);
  assert.deepEqual(wait(2), Array(5).fill(880));
  sound.set("medium");
  assert.deepEqual(wait(0.4), Array(3).fill(660)); // a new priority sounds at once
  sound.set("low");
  assert.deepEqual(wait(21), [440, 440]);
  sound.set("");
  assert.deepEqual(wait(30), []);
  sound.toggle();
});

test("nothing sounds until it is turned on, and then at once", () => {
  const sound = new AlarmSound();
  sound.set("high");
  assert.deepEqual(wait(10), []);
  sound.toggle();
  assert.deepEqual(wait(0.4), Array(5).fill(880));
  assert.equal(sound.toggle(), false);
  assert.deepEqual(wait(10), []);
});

test("the same priority, said again, does not begin again", () => {
  const sound = new AlarmSound();
  sound.toggle();
  sound.set("high");
  wait(1);
  for (let i = 0; i < 10; i++) sound.set("high");
  assert.deepEqual(wait(2), []);
  sound.toggle();
});

test("pulses of a burst are apart as they are written", () => {
  const sound = new AlarmSound();
  sound.toggle();
  sound.set("high");
  now += 200;
  mock.timers.tick(200);
  const starts = pulses.splice(0).map(([at]) => Math.round(100 * (at - 100.02)) / 100);
  assert.deepEqual(starts, [0, 0.16, 0.32, 0.6, 0.76]);
});
