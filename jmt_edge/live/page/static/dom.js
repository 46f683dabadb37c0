// What the page's modules share: elements and times.

export const $ = (id) => document.getElementById(id);

/** Change a node's text only where it differs, so that it is read out once. */
export const say = (node, value) => node.textContent === value || (node.textContent = value);

/** A new element with attributes and children (elements or texts). */
export function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** Seconds as "1:05". */
export const minutesSeconds = (t) => `${Math.floor(t / 60)}:${String(Math.floor(t % 60)).padStart(2, "0")}`;
