// Runs before the page's own scripts: every canvas remembers what was written on it since it was last cleared.
(() => {
  const proto = CanvasRenderingContext2D.prototype, fill = proto.fillText, clear = proto.clearRect;
  const width = Object.getOwnPropertyDescriptor(HTMLCanvasElement.prototype, "width");
  proto.clearRect = function (...area) {
    this.canvas.written = [];
    return clear.apply(this, area);
  };
  Object.defineProperty(HTMLCanvasElement.prototype, "width", {
    ...width,
    set(value) {
      this.written = [];
      width.set.call(this, value);
    },
  });
  proto.fillText = function (words, x, y, ...rest) {
    const m = this.measureText(words), at = this.getTransform(), ratio = devicePixelRatio;
    const corners = [[-m.actualBoundingBoxLeft, -m.actualBoundingBoxAscent], [m.actualBoundingBoxRight, m.actualBoundingBoxDescent]]
      .map(([dx, dy]) => at.transformPoint(new DOMPoint(x + dx, y + dy)));
    const [xs, ys] = [corners.map((p) => p.x / ratio), corners.map((p) => p.y / ratio)];
    (this.canvas.written ??= []).push({
      words: String(words), size: (parseFloat(this.font.match(/([0-9.]+)px/)[1]) * Math.hypot(at.a, at.b)) / ratio,
      left: Math.min(...xs), right: Math.max(...xs), top: Math.min(...ys), bottom: Math.max(...ys),
    });
    return fill.call(this, words, x, y, ...rest);
  };
})();
