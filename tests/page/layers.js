// What is wrong with the bar of alarms and the sheet or dialog below it: a list of sentences. Run in the page.
// The bar is whole, in sight, and what is pressed in it is hit; the layer stands apart from it, and all of it can be reached.
() => {
  const problems = [], name = (n) => n.id || n.textContent.trim().slice(0, 30) || n.tagName;
  const visible = (n) => n.checkVisibility({ visibilityProperty: true }) && n.getClientRects().length > 0;
  const box = (n) => n.getBoundingClientRect();
  const said = (r) => `${Math.round(r.left)},${Math.round(r.top)} to ${Math.round(r.right)},${Math.round(r.bottom)}`;
  const onScreen = (r) => r.left >= -1 && r.top >= -1 && r.right <= innerWidth + 1 && r.bottom <= innerHeight + 1;
  const hit = (n, r = box(n)) => { const found = document.elementFromPoint((r.left + r.right) / 2, (r.top + r.bottom) / 2); return n === found || n.contains(found) || (found && found.contains(n) && found.closest("label, .banner-list")); };
  const banner = document.getElementById("banner");
  const layer = [...document.querySelectorAll("dialog[open], .sheet:not([hidden])")].pop();
  if (!layer) return ["nothing is open"];
  if (!onScreen(box(banner))) problems.push(`the bar is off the screen: ${said(box(banner))}`);
  const checkBar = (when) => {
    for (const n of banner.querySelectorAll("button, .alarm .text, .calm .text, div.calm")) {
      if (!visible(n) || !n.textContent.trim()) continue;
      const r = n.getClientRects()[0];
      if (!onScreen(r)) problems.push(`${name(n)} of the bar is off the screen ${when}`);
      else if (!hit(n, r)) problems.push(`${name(n)} of the bar is covered ${when}`);
    }
  };
  checkBar("at first");
  const a = box(banner), b = box(layer);
  if (!onScreen(b)) problems.push(`${name(layer)} is off the screen: ${said(b)}`);
  if (b.top < a.bottom) problems.push(`${name(layer)} lies on the bar: ${said(b)}, ${said(a)}`);
  if (b.height < 160) problems.push(`${name(layer)} is only ${Math.round(b.height)} px high`);
  if (layer.scrollWidth > layer.clientWidth) problems.push(`${name(layer)} scrolls sideways`);
  const start = layer.scrollTop;
  for (const n of layer.querySelectorAll("button, input, select, h2, p, dt")) {
    if (!visible(n) || !(n.textContent.trim() || n.matches("input"))) continue;
    n.scrollIntoView({ block: "nearest" });
    const r = box(n);
    if (!onScreen(r) && r.height < b.height) problems.push(`${name(n)} cannot be scrolled to: ${said(r)}`);
    else if (n.matches("button, input, select") && !hit(n)) problems.push(`${name(n)} is covered: ${said(r)}`);
  }
  layer.scrollTop = start;
  checkBar("after scrolling");
  return [...new Set(problems)];
}
