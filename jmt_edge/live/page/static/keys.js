// Which key asks for what.

const ALWAYS = ["a", "p", "s", "d", "?", "Escape"]; // while a view hides the cards that the others act on

/** {rating} from 0 to 10, {key} of one of the page's own, or null where a key belongs to something else. covered: the
 * cards are not seen. */
export function pressed(event, covered = false) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return null;
  if (event.target.closest("input, select, dialog")) return null;
  if (covered && !ALWAYS.includes(event.key)) return null;
  if (/^[0-9]$/.test(event.key)) return { rating: Number(event.key) };
  return event.key === "t" ? { rating: 10 } : { key: event.key };
}
