// The camera's picture with the face's box. Of pictures that arrive while one is being decoded, only the newest is drawn.

import { css } from "./charts.js";

export class FaceView {
  constructor(canvas) {
    this.canvas = canvas;
    this.waiting = null;
    this.busy = false;
    this.shown = 0;
  }

  /** Message type 1: 8 bytes of head, f64 t, 4 x f32 box, f32 score, u32 0, JPEG. */
  async frame(buffer) {
    this.waiting = buffer;
    if (this.busy) return;
    this.busy = true;
    try {
      while (this.waiting) {
        const message = this.waiting;
        this.waiting = null;
        await this.#draw(message);
      }
    } finally {
      this.busy = false;
    }
  }

  async #draw(buffer) {
    const data = new DataView(buffer);
    const box = [16, 20, 24, 28].map((at) => data.getFloat32(at, true));
    const picture = await createImageBitmap(new Blob([new Uint8Array(buffer, 40)], { type: "image/jpeg" }));
    const { canvas } = this;
    if (this.off) {
      picture.close();
      return;
    }
    const scale = devicePixelRatio, width = canvas.clientWidth * scale, height = canvas.clientHeight * scale;
    if (canvas.width !== width) canvas.width = width;
    if (canvas.height !== height) canvas.height = height;
    const ctx = canvas.getContext("2d");
    const fit = Math.min(width / picture.width, height / picture.height);
    const w = picture.width * fit, h = picture.height * fit, x = (width - w) / 2, y = (height - h) / 2;
    ctx.clearRect(0, 0, width, height);
    ctx.drawImage(picture, x, y, w, h);
    picture.close();
    if (box.some((v) => v !== 0)) {
      ctx.strokeStyle = css("--accent");
      ctx.lineWidth = 3 * scale;
      ctx.strokeRect(x + box[0] * w, y + box[1] * h, (box[2] - box[0]) * w, (box[3] - box[1]) * h);
    }
    this.shown++;
    canvas.dataset.shown = this.shown;
    canvas.dataset.box = box.some((v) => v !== 0);
  }

  clear() {
    this.waiting = null;
    this.canvas.getContext("2d").clearRect(0, 0, this.canvas.width, this.canvas.height);
    this.canvas.dataset.box = false;
  }
}
