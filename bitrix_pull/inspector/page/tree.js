// JSON as a tree of disclosures: keyboards and screen readers know them.

import { element } from "./words.js";

const AT_ONCE = 100;
const OPEN_DEPTH = 2;
const OPEN_MOST = 40;

/** A number whose text says more than JavaScript can hold. */
class Exact {
  constructor(source) {
    this.source = source;
  }
}

/** Read JSON; numbers stay as they were written, where the browser tells how. */
export function read(text) {
  return JSON.parse(text, (key, value, context) =>
    typeof value === "number" && context?.source && String(value) !== context.source ? new Exact(context.source) : value,
  );
}

export function draw(target, value) {
  target.replaceChildren(node(null, value, 0));
}

function node(name, value, depth) {
  if (value === null || typeof value !== "object" || value instanceof Exact) return leaf(name, value);
  const isList = Array.isArray(value);
  const entries = isList ? value.map((item, index) => [index, item]) : Object.entries(value);
  const size = isList ? `[${entries.length}]` : `{${entries.length}}`;
  if (!entries.length) return element("div", { class: "leaf" }, ...label(name), element("span", { class: "size" }, isList ? "[]" : "{}"));
  const summary = element("summary", {}, ...label(name), element("span", { class: "size" }, size));
  const inside = element("div");
  const details = element("details", {}, summary, inside);
  const open = () => inside.childNodes.length || more(inside, entries, 0, depth + 1);
  details.addEventListener("toggle", open);
  if (depth < OPEN_DEPTH && entries.length <= OPEN_MOST) {
    open();
    details.open = true;
  }
  return details;
}

function more(inside, entries, begin, depth) {
  const end = Math.min(begin + AT_ONCE, entries.length);
  for (const [name, value] of entries.slice(begin, end)) inside.append(node(name, value, depth));
  if (end === entries.length) return;
  const button = element("button", { type: "button" }, `${Math.min(AT_ONCE, entries.length - end)} more of ${entries.length}`);
  button.addEventListener("click", () => {
    button.remove();
    more(inside, entries, end, depth);
  });
  inside.append(button);
}

function leaf(name, value) {
  const kind = value instanceof Exact ? "number" : typeof value === "string" || typeof value === "number" ? typeof value : "word";
  const text = value instanceof Exact ? value.source : typeof value === "string" ? JSON.stringify(value) : String(value);
  return element("div", { class: "leaf" }, ...label(name), element("span", { class: kind }, text));
}

const label = (name) => (name === null ? [] : [element("span", { class: "k" }, String(name)), ": "]);
