// What is wrong with the page as it stands on the screen: a list of sentences. Run in the page; needs `canvas_text.js`.
// minimums: [[selector, px], ...] of text sizes; the first that matches counts. whole: everything is on the screen.
({ minimums, whole }) => {
  const problems = [];
  const name = (n) => n.id ? `#${n.id}` : `${n.parentElement?.id ? `#${n.parentElement.id} ` : ""}${n.tagName.toLowerCase()}${n.className && n.className.split ? `.${n.className.split(" ")[0]}` : ""}`;
  const visible = (n) => n.checkVisibility({ visibilityProperty: true, opacityProperty: true }) && n.getClientRects().length > 0 && !n.matches(".sr, .sr *, .skip");
  const rounded = (r) => `${Math.round(r.left)},${Math.round(r.top)} ${Math.round(r.width)}x${Math.round(r.height)}`;
  const within = (a, b, slack = 1) => a.left >= b.left - slack && a.top >= b.top - slack && a.right <= b.right + slack && a.bottom <= b.bottom + slack;
  const overlap = (a, b) => [Math.min(a.right, b.right) - Math.max(a.left, b.left), Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top)];
  const meet = (a, b, slack = 1) => overlap(a, b).every((d) => d > slack);
  const screen = { left: 0, top: 0, right: innerWidth, bottom: innerHeight };

  // the letters' own box: a line's is taller than its letters
  const letters = (node) => {
    const range = document.createRange();
    range.selectNodeContents(node);
    return [...range.getClientRects()].filter((r) => r.width > 0 && r.height > 0).map((r) => {
      const trim = r.height * 0.16;
      return { left: r.left, right: r.right, top: r.top + trim, bottom: r.bottom - trim, width: r.width, height: r.height - 2 * trim };
    });
  };
  // a sheet lies over cards and footer, and never over the banner
  const sheet = document.querySelector(".sheet:not([hidden])"), covered = "header, .banner, footer, .card";
  const regions = sheet ? "header, .banner, .sheet:not([hidden])" : covered;
  const everything = [...document.querySelectorAll(sheet ? regions : "header, .banner, main, footer")].flatMap((n) => [n, ...n.querySelectorAll("*")]).filter(visible);
  const texts = everything.flatMap((n) => [...n.childNodes].filter((c) => c.nodeType === 3 && c.data.trim()).map((c) => ({ node: n, words: c.data.trim().slice(0, 40), boxes: letters(c) })));

  // the grid: its template is valid, every area has its card and every card its area
  const grid = document.querySelector("main"), cards = sheet ? [sheet] : [...document.querySelectorAll(".card")].filter(visible);
  const style = getComputedStyle(grid);
  if (style.display === "grid" && !sheet) {
    const named = new Set(style.gridTemplateAreas.match(/[a-z]+/g)?.filter((word) => word !== "none"));
    if (style.gridTemplateAreas === "none") problems.push("grid-template-areas is not valid");
    const used = cards.map((card) => getComputedStyle(card).gridRowStart);
    for (const area of named) if (!used.includes(area)) problems.push(`area ${area} has no card`);
    for (const area of used) if (!named.has(area)) problems.push(`a card has no area: ${area}`);
    const box = grid.getBoundingClientRect();
    const inner = (grid.clientWidth - parseFloat(style.paddingLeft) * 2) * (grid.clientHeight - parseFloat(style.paddingTop) * 2);
    const filled = cards.reduce((sum, card) => { const r = card.getBoundingClientRect(); return sum + r.width * r.height; }, 0);
    if (filled < 0.9 * inner) problems.push(`cards cover ${Math.round((100 * filled) / inner)} % of ${rounded(box)}`);
  }

  // regions and cards: apart from each other, on the screen
  const blocks = [...document.querySelectorAll(sheet ? "header, .banner" : "header, .banner, footer"), ...cards];
  for (let i = 0; i < blocks.length; i++)
    for (let j = 0; j < i; j++)
      if (meet(blocks[i].getBoundingClientRect(), blocks[j].getBoundingClientRect())) problems.push(`${name(blocks[i])} overlaps ${name(blocks[j])}`);
  for (const block of blocks) {
    const r = block.getBoundingClientRect();
    if (r.left < -1 || r.right > innerWidth + 1) problems.push(`${name(block)} is wider than the screen`);
    if ((whole || block === sheet) && !within(r, screen)) problems.push(`${name(block)} is off the screen: ${rounded(r)}`);
  }
  if (document.documentElement.scrollWidth > innerWidth) problems.push(`the page scrolls sideways: ${document.documentElement.scrollWidth}`);
  if (whole && document.documentElement.scrollHeight > innerHeight) problems.push(`the page scrolls: ${document.documentElement.scrollHeight} of ${innerHeight}`);

  // every element is within its block; only lists scroll
  const list = (n) => n.parentElement?.closest(".marks, .scroll") ?? null;
  const scrolls = (n) => list(n) !== null;
  for (const n of everything) {
    if (scrolls(n)) {
      const r = n.getBoundingClientRect(), around = list(n).getBoundingClientRect();
      if (r.left < around.left - 1 || r.right > around.right + 1) problems.push(`${name(n)} leaves its list: ${rounded(r)}`);
      continue;
    }
    const block = n.closest(regions), r = n.getBoundingClientRect();
    if (block && block !== n && r.width && r.height && !within(r, block.getBoundingClientRect())) problems.push(`${name(n)} leaves ${name(block)}: ${rounded(r)} of ${rounded(block.getBoundingClientRect())}`);
    const clips = getComputedStyle(n).overflowX !== "visible" || getComputedStyle(n).overflowY !== "visible";
    if (clips && !n.matches(".marks, .scroll, input") && (n.scrollWidth > n.clientWidth + 1 || n.scrollHeight > n.clientHeight + 1))
      problems.push(`${name(n)} is cut: ${n.scrollWidth}x${n.scrollHeight} in ${n.clientWidth}x${n.clientHeight}`);
  }
  for (const { node, words, boxes } of texts) {
    if (scrolls(node)) continue;
    const block = node.closest(regions);
    for (const r of boxes) {
      for (let up = node; up && up !== document.body; up = up.parentElement) {
        const clips = up === block || getComputedStyle(up).overflowX !== "visible" || up.matches("button");
        if (clips && !within(r, up.getBoundingClientRect())) problems.push(`"${words}" is cut by ${name(up)}`);
      }
    }
  }

  // nothing lies on anything else, other than what is made to lie on it
  const solid = (n) => n.matches("button, input, .chart, .face-box, .circumplex-box, .meter");
  const things = [
    ...everything.filter(solid).map((n) => ({ node: n, label: name(n), boxes: [n.getBoundingClientRect()] })),
    ...texts.filter(({ node }) => !node.closest("button, .face-box, .chart")).map(({ node, words, boxes }) => ({ node, label: `"${words}"`, boxes })),
  ].filter(({ node }) => !list(node)?.matches(".marks"));
  for (let i = 0; i < things.length; i++)
    for (let j = 0; j < i; j++) {
      const a = things[i], b = things[j];
      if (a.node === b.node || list(a.node) !== list(b.node) || a.node.contains(b.node) && solid(a.node) || b.node.contains(a.node) && solid(b.node)) continue;
      if (a.boxes.some((x) => b.boxes.some((y) => meet(x, y)))) problems.push(`${a.label} lies on ${b.label}`);
    }
  for (const [selector, width, height] of [[".chart", 100, 55], [".face-box", 80, 60], [".circumplex-box", 90, 90], [".meter", 60, 7]])
    for (const n of everything.filter((x) => x.matches(selector)))
      if (n.clientWidth < width || n.getBoundingClientRect().height < height) problems.push(`${name(n)} is too small: ${n.clientWidth}x${n.clientHeight}`);

  const pen = document.createElement("canvas").getContext("2d");
  for (const n of everything.filter((x) => x.placeholder)) {
    const s = getComputedStyle(n);
    pen.font = `${s.fontSize} ${s.fontFamily}`;
    if (pen.measureText(n.placeholder).width > n.clientWidth - parseFloat(s.paddingLeft) - parseFloat(s.paddingRight)) problems.push(`"${n.placeholder}" is cut`);
  }

  // sizes of text, and contrast
  const rgb = (c) => (c.match(/[0-9.]+/g) ?? []).map(Number);
  const luminance = ([r, g, b]) => [0.2126, 0.7152, 0.0722].reduce((sum, w, i) => { const v = [r, g, b][i] / 255; return sum + w * (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); }, 0);
  const ratio = (a, b) => { const [x, y] = [luminance(a), luminance(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
  const behind = (n) => { for (let up = n; up; up = up.parentElement) { const c = rgb(getComputedStyle(up).backgroundColor); if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
  for (const { node, words, boxes } of texts) {
    if (!boxes.length) continue;
    const s = getComputedStyle(node), size = parseFloat(s.fontSize), [, least] = minimums.find(([selector]) => node.matches(selector));
    if (size < least - 0.01) problems.push(`"${words}" has ${size} px, less than ${least}`);
    if (node.closest(":disabled")) continue;
    let opacity = 1;
    for (let up = node; up; up = up.parentElement) opacity *= parseFloat(getComputedStyle(up).opacity);
    const large = size >= 24 || (size >= 18.66 && +s.fontWeight >= 700), back = behind(node), fore = rgb(s.color).map((v, i) => v * opacity + back[i] * (1 - opacity));
    const found = ratio(fore, back);
    if (found < (large ? 3 : 4.5)) problems.push(`"${words}" has a contrast of ${found.toFixed(2)}`);
  }
  for (const n of everything.filter((x) => x.matches("button:enabled, input:enabled"))) {
    const found = ratio(rgb(getComputedStyle(n).borderTopColor), behind(n.parentElement));
    if (found < 3 && !n.closest(".banner")) problems.push(`the border of ${name(n)} has a contrast of ${found.toFixed(2)}`);
  }

  // what is written on canvases
  for (const canvas of everything.filter((n) => n.tagName === "CANVAS")) {
    const written = [...(canvas.written ?? [])];
    for (const { words, size, left, right, top, bottom } of written) {
      if (size < 13.9) problems.push(`"${words}" in ${name(canvas.closest("[id]"))} has ${size.toFixed(1)} px`);
      if (left < -1 || top < -1 || right > canvas.width / devicePixelRatio + 1 || bottom > canvas.height / devicePixelRatio + 1)
        problems.push(`"${words}" in ${name(canvas.closest("[id]"))} is cut`);
    }
    for (let i = 0; i < written.length; i++)
      for (let j = 0; j < i; j++) if (meet(written[i], written[j])) problems.push(`"${written[i].words}" lies on "${written[j].words}"`);
  }
  return [...new Set(problems)];
}
