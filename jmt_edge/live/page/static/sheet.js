// A sheet lies over the cards and never over the alarms; it is no dialog, so every key of the page works meanwhile.

import { $ } from "./dom.js";

let shown = null; // the sheet that is open

/** Below the banner, wherever that ends now. */
function place() {
  if (shown) shown.style.top = `${Math.max(8, Math.round($("banner").getBoundingClientRect().bottom) + 8)}px`;
}

export function openSheet(sheet) {
  if (shown && shown !== sheet) closeSheet();
  shown = sheet;
  window.scrollTo(0, 0);
  document.body.classList.add("covered");
  $("main").inert = true;
  sheet.hidden = false;
  place();
  sheet.querySelector("h2").focus({ preventScroll: true });
}

export function closeSheet() {
  if (!shown) return;
  const sheet = shown;
  shown = null;
  sheet.hidden = true;
  document.body.classList.remove("covered");
  $("main").inert = false;
  sheet.dispatchEvent(new Event("close"));
}

for (const button of document.querySelectorAll(".sheet [data-close]")) button.onclick = closeSheet;
new ResizeObserver(place).observe($("banner"));
window.addEventListener("resize", place);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && shown && !event.target.closest("dialog, input")) closeSheet();
});
