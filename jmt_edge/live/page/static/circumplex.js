// Russell's circumplex: valence to the right, arousal upwards, with a trail of the last results.

import { css } from "./charts.js";
import { tr } from "./text.js";

const TRAIL = 40;
const WORDS = [
  [tr("excited"), 0.62, 0.62], [tr("content"), 0.62, -0.62], [tr("bored"), -0.62, -0.62], [tr("distressed"), -0.62, 0.62],
];

export class Circumplex {
  constructor(canvas) {
    this.canvas = canvas;
    this.points = []; // [valence, arousal] or null
    this.around = null; // the newest point's intervals, [[low, high] of valence, of arousal]
    this.others = []; // points without one of the modalities
    new ResizeObserver(() => this.draw()).observe(canvas.parentElement);
  }

  /** What is drawn with the newest point, from the next `draw` on. */
  about(around, others) {
    this.around = around;
    this.others = others;
  }

  set(points) {
    this.points = points.slice(-TRAIL);
    this.draw();
  }

  push(point) {
    this.points = [...this.points, point].slice(-TRAIL);
    this.draw();
  }

  draw() {
    const { canvas } = this, scale = devicePixelRatio;
    const width = canvas.clientWidth, height = canvas.clientHeight;
    if (!width || !height) return;
    canvas.width = width * scale;
    canvas.height = height * scale;
    const ctx = canvas.getContext("2d");
    ctx.scale(scale, scale);
    const radius = Math.min(width, height) / 2 - 18, cx = width / 2, cy = height / 2;
    const at = ([v, a]) => [cx + v * radius, cy - a * radius];
    ctx.strokeStyle = css("--line");
    ctx.lineWidth = 1.5;
    for (const r of [radius, radius / 2]) {
      ctx.beginPath();
      ctx.arc(cx, cy, r, 0, 2 * Math.PI);
      ctx.stroke();
    }
    ctx.beginPath();
    ctx.moveTo(cx - radius, cy); ctx.lineTo(cx + radius, cy);
    ctx.moveTo(cx, cy - radius); ctx.lineTo(cx, cy + radius);
    ctx.stroke();
    ctx.fillStyle = css("--dim");
    ctx.textAlign = "center";
    ctx.font = "14px system-ui, sans-serif";
    ctx.fillText(tr("arousal"), cx, cy - radius - 6);
    ctx.save();
    ctx.translate(cx + radius + 13, cy);
    ctx.rotate(-Math.PI / 2);
    ctx.fillText(tr("valence"), 0, 0);
    ctx.restore();
    if (radius > 80) for (const [word, v, a] of WORDS) ctx.fillText(word, ...at([v, a]));

    const newest = this.points.length - 1;
    ctx.lineWidth = 2.5;
    for (let i = 1; i <= newest; i++) {
      const [from, to] = [this.points[i - 1], this.points[i]];
      if (!from || !to) continue;
      ctx.strokeStyle = `color-mix(in srgb, ${css("--accent")} ${Math.round(8 + (82 * i) / this.points.length)}%, transparent)`;
      ctx.beginPath();
      ctx.moveTo(...at(from));
      ctx.lineTo(...at(to));
      ctx.stroke();
    }
    const here = this.points[newest];
    if (!here) return; // no data: no point
    if (this.around) {
      const [[v0, v1], [a0, a1]] = this.around, [left, top] = at([v0, a1]), [right, bottom] = at([v1, a0]);
      ctx.strokeStyle = css("--dim");
      ctx.setLineDash([4, 4]);
      ctx.strokeRect(left, top, right - left, bottom - top);
      ctx.setLineDash([]);
    }
    ctx.strokeStyle = css("--dim");
    for (const point of this.others) {
      ctx.beginPath();
      ctx.arc(...at(point), 4, 0, 2 * Math.PI);
      ctx.stroke();
    }
    ctx.fillStyle = css("--accent");
    ctx.strokeStyle = css("--card");
    ctx.lineWidth = 3;
    ctx.beginPath();
    ctx.arc(...at(here), 10, 0, 2 * Math.PI);
    ctx.fill();
    ctx.stroke();
  }
}
