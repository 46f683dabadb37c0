// A sheet lies over the cards and never over the alarms; it is no dialog, so every key of the page works meanwhile.

import { lay, lift } from "./layers.js";

let shown = null; // the sheet that is open

export function openSheet(sheet) {
  if (shown && shown !== sheet) closeSheet();
  if (!shown) {
    window.scrollTo(0, 0);
    lay(sheet);
  }
  shown = sheet;
  sheet.hidden = false;
  sheet.querySelector("h2").focus({ preventScroll: true });
}

export function closeSheet() {
  if (!shown) return;
  const sheet = shown;
  shown = null;
  sheet.hidden = true;
  lift(sheet);
  sheet.dispatchEvent(new Event("close"));
}

for (const button of document.querySelectorAll(".sheet [data-close]")) button.onclick = closeSheet;
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && shown && !event.target.closest("input")) closeSheet();
});
