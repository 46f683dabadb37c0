// Which key asks for what.

const ALWAYS = ["a", "p", "s", "d", "?", "Escape"]; // while a view or a dialog hides the cards that the others act on
const TAKES_LETTERS = "select, textarea, input:not([type=range]):not([type=checkbox])";

/** {rating} from 0 to 10, {key} of one of the page's own, or null where a key belongs to something else. covered: the
 * cards are not seen. */
export function pressed(event, covered = false) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return null;
  if (event.target.closest(TAKES_LETTERS)) return null;
  if ((covered || event.target.closest("input, dialog")) && !ALWAYS.includes(event.key)) return null;
  if (/^[0-9]$/.test(event.key)) return { rating: Number(event.key) };
  return event.key === "t" ? { rating: 10 } : { key: event.key };
}
