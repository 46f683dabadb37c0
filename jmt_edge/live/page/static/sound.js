// The alarm sound, synthesised: a burst of pulses for each priority. Off until it is turned on.

const BURSTS = { // pulses of [start s, Hz], repeated every `every` s
  high: { pulses: [[0, 880], [0.16, 880], [0.32, 880], [0.6, 880], [0.76, 880]], every: 4 },
  medium: { pulses: [[0, 660], [0.25, 660], [0.5, 660]], every: 8 },
  low: { pulses: [[0, 440]], every: 20 },
};

export class AlarmSound {
  constructor() {
    this.on = false;
    this.priority = "";
    this.last = -Infinity;
    setInterval(() => this.#tick(), 200);
  }

  /** Call it from a click or a key: browsers allow sound only then. */
  toggle() {
    this.on = !this.on;
    if (this.on) {
      this.context ??= new AudioContext();
      this.context.resume();
    }
    this.last = -Infinity;
    return this.on;
  }

  set(priority) {
    if (priority !== this.priority) this.last = -Infinity;
    this.priority = priority;
  }

  #tick() {
    const burst = BURSTS[this.priority], now = performance.now() / 1000;
    if (!this.on || !burst || now - this.last < burst.every) return;
    this.last = now;
    for (const [start, hertz] of burst.pulses) this.#pulse(this.context.currentTime + 0.02 + start, hertz);
  }

  #pulse(at, hertz) {
    const tone = this.context.createOscillator(), gain = this.context.createGain();
    tone.type = "triangle";
    tone.frequency.value = hertz;
    gain.gain.setValueAtTime(0, at);
    gain.gain.linearRampToValueAtTime(0.35, at + 0.015);
    gain.gain.setValueAtTime(0.35, at + 0.1);
    gain.gain.linearRampToValueAtTime(0, at + 0.13);
    tone.connect(gain).connect(this.context.destination);
    tone.start(at);
    tone.stop(at + 0.15);
  }
}
