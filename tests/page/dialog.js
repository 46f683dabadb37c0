// What is wrong with the open dialog of recordings: a list of sentences. Run in the page; needs `canvas_text.js`.
// Its texts are inside it and apart, rows hold their texts, buttons and charts stand apart, the charts agree in time.
() => {
  const dialog = document.getElementById("recordings-dialog"), problems = [];
  const visible = (n) => n.checkVisibility() && n.getClientRects().length;
  const all = [...dialog.querySelectorAll("*")].filter(visible);
  if (dialog.scrollWidth > dialog.clientWidth) problems.push(`scrolls sideways: ${dialog.scrollWidth} of ${dialog.clientWidth}`);
  // what scrolls out of the list is not on the screen
  const inside = (n) => {
    const r = n.getBoundingClientRect(), list = n.closest(".list")?.getBoundingClientRect();
    return list ? { left: r.left, right: r.right, top: Math.max(r.top, list.top), bottom: Math.min(r.bottom, list.bottom) } : r;
  };
  const texts = all.flatMap((n) => [...n.childNodes].filter((c) => c.nodeType === 3 && c.data.trim()).flatMap((c) => {
    const range = document.createRange();
    range.selectNodeContents(c);
    return [...range.getClientRects()].map((r) => ({ n, words: c.data.trim().slice(0, 30), r }));
  }));
  for (const [i, a] of texts.entries()) {
    const box = a.n.closest("button, .recording, dialog").getBoundingClientRect();
    if (a.r.left < box.left - 1 || a.r.right > box.right + 1) problems.push(`"${a.words}" is cut`);
    if (!a.n.closest("dialog > h2") && (a.r.top < box.top - 1 || a.r.bottom > box.bottom + 1) && a.n.closest("button, .recording"))
      problems.push(`"${a.words}" leaves its row`);
    for (const b of texts.slice(0, i)) {
      const x = Math.min(a.r.right, b.r.right) - Math.max(a.r.left, b.r.left), y = Math.min(a.r.bottom, b.r.bottom) - Math.max(a.r.top, b.r.top);
      if (a.n !== b.n && x > 1 && y > 0.3 * a.r.height) problems.push(`"${a.words}" lies on "${b.words}"`);
    }
  }
  const blocks = all.filter((n) => n.matches("button, input, .chart, .recording") && !n.parentElement.closest("button"));
  for (const [i, a] of blocks.entries()) for (const b of blocks.slice(0, i)) {
    const r = inside(a), s = inside(b);
    if (Math.min(r.right, s.right) - Math.max(r.left, s.left) > 0 && Math.min(r.bottom, s.bottom) - Math.max(r.top, s.top) > -3)
      problems.push(`${a.id || a.className || a.textContent} meets ${b.id || b.className || b.textContent}`);
  }
  const times = all.filter((n) => n.matches("canvas")).map((c) => c.written.map((w) => w.words).filter((w) => /^\d+:\d\d$/.test(w)));
  for (const labels of times) if (new Set(labels).size < labels.length) problems.push(`times repeat: ${labels}`);
  if (new Set(times.map((labels) => labels.at(-1))).size > 1) problems.push(`two axes of time: ${times.join(" | ")}`);
  return problems;
}
