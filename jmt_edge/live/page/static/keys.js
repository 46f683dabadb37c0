// Which key asks for what.

/** {rating} from 0 to 10, {key} of one of the page's own, or null where a key belongs to something else. */
export function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return null;
  if (event.target.closest("input, select, dialog")) return null;
  if (/^[0-9]$/.test(event.key)) return { rating: Number(event.key) };
  return event.key === "t" ? { rating: 10 } : { key: event.key };
}
