// Which key asks for what.

const ALWAYS = ["a", "p", "s", "d", "?", "Escape"]; // while a view or a dialog hides the cards that the others act on
const TAKES_LETTERS = "textarea, input:not([type=range]):not([type=checkbox])";

/** Whether a list would go to one of its options by this letter. */
const goesTo = (list, key) => [...list.options].some((option) => option.text.toLowerCase().startsWith(key.toLowerCase()));

/** Whether the key belongs to what has the focus. */
function taken({ key, target }, covered) {
  if (target.closest(TAKES_LETTERS)) return true;
  const list = target.closest("select");
  if (list && goesTo(list, key)) return true;
  return (covered || list || target.closest("input, dialog")) && !ALWAYS.includes(key);
}

/** {rating} from 0 to 10, {key} of one of the page's own, or null where a key belongs to something else. covered: the
 * cards are not seen. */
export function pressed(event, covered = false) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || taken(event, covered)) return null;
  if (/^[0-9]$/.test(event.key)) return { rating: Number(event.key) };
  return event.key === "t" ? { rating: 10 } : { key: event.key };
}
