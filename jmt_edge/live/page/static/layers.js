// Sheets and dialogs lie over the cards and below the bar of alarms, which stays in sight and within reach of mouse,
// touch, keys and screen readers. showModal() would put a dialog above the bar and make the bar inert, so it is not used.

import { $ } from "./dom.js";

const CONTROLS = "a[href], button, input, select, textarea, [tabindex=\"0\"]";
const layers = []; // {node, back: what had the focus before}; the topmost last

const topmost = () => layers[layers.length - 1]?.node ?? null;
const topDialog = () => (topmost()?.matches("dialog") ? topmost() : null);

/** Where the bar ends now: style.css puts the layers there. */
function place() {
  const below = Math.max(8, Math.round($("banner").getBoundingClientRect().bottom) + 8);
  document.documentElement.style.setProperty("--below", `${below}px`);
}

/** Below a dialog only the bar can be used, below a sheet the header and the footer, too. */
function cover() {
  const shown = topmost(), dialog = topDialog();
  for (const part of document.body.children) {
    if (part.matches("#banner, #veil, script, noscript")) continue;
    part.inert = Boolean(shown) && part !== shown && (Boolean(dialog) || part.matches("main"));
  }
  document.body.classList.toggle("covered", Boolean(shown));
  place();
}

/** `node` becomes the topmost layer. */
export function lay(node) {
  layers.push({ node, back: document.activeElement });
  cover();
}

/** `node` is a layer no longer; the focus returns to where it was. */
export function lift(node) {
  const at = layers.findIndex((layer) => layer.node === node);
  if (at < 0) return;
  const [{ back }] = layers.splice(at, 1);
  if (layers[at]) layers[at].back = back; // it was not the topmost
  cover();
  if (!layers[at] && !$("banner").contains(document.activeElement)) back?.focus({ preventScroll: true });
}

/** Whether a dialog is open, which the keys of the cards do not reach. */
export const inDialog = () => Boolean(topDialog()?.open); // its event of closing comes later

/** Open a `<dialog>` below the alarms. */
export function openDialog(dialog) {
  if (dialog.open) return;
  lift(dialog); // closed a moment ago
  lay(dialog);
  dialog.tabIndex = -1; // what is clicked beside its controls keeps the focus in it
  dialog.show();
}

/** Tab goes round the bar and the dialog. */
function goRound(event, dialog) {
  const stops = [$("banner"), dialog].flatMap((part) => [...part.querySelectorAll(CONTROLS)]).filter((node) => !node.disabled && node.checkVisibility());
  const [first, last] = [stops[0], stops[stops.length - 1]], now = document.activeElement;
  const inside = dialog.contains(now) || $("banner").contains(now);
  if (inside && now !== (event.shiftKey ? first : last)) return;
  event.preventDefault();
  const next = event.shiftKey ? last : first;
  (inside ? next : (stops.find((node) => dialog.contains(node)) ?? dialog)).focus();
}

function onKey(event) {
  const dialog = topDialog();
  if (!dialog) return;
  if (event.key === "Tab") goRound(event, dialog);
  if (event.key !== "Escape") return;
  event.preventDefault();
  event.stopPropagation(); // nothing below closes with it
  if (!dialog.dispatchEvent(new Event("cancel", { cancelable: true }))) return;
  dialog.close();
  lift(dialog);
}

/** A control of the bar that disappears, as an alarm is acknowledged, does not take the focus out of the dialog. */
function keepFocus() {
  const dialog = topDialog();
  if (dialog && [document.body, null].includes(document.activeElement)) dialog.focus({ preventScroll: true });
}

for (const dialog of document.querySelectorAll("dialog")) dialog.addEventListener("close", () => dialog.open || lift(dialog));
new ResizeObserver(place).observe($("banner"));
window.addEventListener("resize", place);
document.addEventListener("keydown", onKey, true);
document.addEventListener("focusout", () => setTimeout(keepFocus));
