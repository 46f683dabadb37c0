// An ESLint rule: what a person reads is given to tr() or trn(), as a literal, so that it is in every language's catalogue.

const TRANSLATE = ["tr", "trn"];
const FREE = /\b(?:select|input|textarea|button|dB|ms|px|REC|jmt-edge|Spearman|Bearer|Escape|color-mix\(in srgb|prefers-color-scheme: \w+)\b/g; // the same in every language, or no text at all
const WORD = /\p{L}{2}/u, PHRASE = /\p{L}{2,}[,:;]? \p{L}|\p{L}[,:;]? \p{L}{2,}|^\p{Lu}\p{Ll}/u;
const SINKS = { say: 1, text: 1, make: 2, fillText: 0 }; // function or method -> its first argument that is shown
const SHOWN = ["textContent", "title", "placeholder", "alt", "ariaLabel", "innerText"];
const ATTRIBUTES = ["title", "aria-label", "placeholder", "alt"];
const NO_TEXT = ["class", "className", "id", "type", "font", "fillStyle", "href"]; // properties
const TECHNICAL = ["querySelector", "querySelectorAll", "closest", "addEventListener", "fetch", "ask", "Event", "RegExp", "Symbol", "startsWith", "matches"];

const called = (node) => node.callee.property?.name ?? node.callee.name ?? "";
const keyOf = (node) => (node.key.type === "Identifier" ? node.key.name : node.key.value);

function inCall(call, child, literal) {
  if (call.callee === child) return "";
  const name = called(call), at = call.arguments.indexOf(child);
  if (TRANSLATE.includes(name)) return at < (name === "trn" ? 2 : 1) && child === literal ? "translated" : "";
  if (TECHNICAL.includes(name)) return "technical";
  if (name === "setAttribute") return at === 1 && ATTRIBUTES.includes(call.arguments[0].value) ? "shown" : "technical";
  return name in SINKS && at >= SINKS[name] ? "shown" : "";
}

function inProperty(property, child) {
  if (property.key === child || NO_TEXT.includes(keyOf(property))) return "technical";
  return ATTRIBUTES.includes(keyOf(property)) ? "shown" : null;
}

function inAssignment({ left }) {
  if (NO_TEXT.includes(left.property?.name)) return "technical";
  return SHOWN.includes(left.property?.name) ? "shown" : "";
}

// what a node says of a literal below it; null: look further up
const AROUND = {
  CallExpression: inCall, NewExpression: inCall, Property: inProperty, AssignmentExpression: inAssignment,
  BinaryExpression: ({ operator }) => (/[=<>]/.test(operator) ? "technical" : null),
  MemberExpression: ({ property }, child) => (property === child ? "technical" : null),
  ConditionalExpression: ({ test }, child) => (test === child ? "technical" : null),
  ImportDeclaration: () => "technical", ExportNamedDeclaration: ({ source }, child) => (source === child ? "technical" : null),
};

/** What a literal is: "translated", "technical", "shown", or "" where nothing around it says so. */
function placeOf(literal) {
  let child = literal;
  for (let node = literal.parent; node; child = node, node = node.parent) {
    const place = AROUND[node.type]?.(node, child, literal) ?? null;
    if (place !== null) return place;
    if (/Function|Statement|ClassBody|Declarat/.test(node.type)) return "";
  }
  return "";
}

export const bareText = {
  meta: { type: "problem", schema: [], messages: { bare: "“{{text}}” is read by a person: give it to tr() as a literal", computed: "{{name}}() takes literals, which the catalogue's test finds" } },
  create(context) {
    const look = (node, value) => {
      const text = value.replace(FREE, ""), place = placeOf(node);
      if (place === "translated" || place === "technical") return;
      if (place === "shown" ? WORD.test(text) : PHRASE.test(text)) context.report({ node, messageId: "bare", data: { text: value } });
    };
    return {
      Literal: (node) => typeof node.value === "string" && look(node, node.value),
      TemplateElement: (node) => look(node, node.value.cooked),
      CallExpression: (node) => {
        const name = node.callee.name;
        const given = node.arguments.slice(0, name === "trn" ? 2 : 1);
        if (TRANSLATE.includes(name) && !given.every((one) => typeof one.value === "string")) context.report({ node, messageId: "computed", data: { name } });
      },
    };
  },
};
