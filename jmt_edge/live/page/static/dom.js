// What the page's modules share: elements and times.

export const $ = (id) => document.getElementById(id);

/** A new element with attributes and children (elements or texts). */
export function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** Seconds as "1:05". */
export const minutesSeconds = (t) => `${Math.floor(t / 60)}:${String(Math.floor(t % 60)).padStart(2, "0")}`;
