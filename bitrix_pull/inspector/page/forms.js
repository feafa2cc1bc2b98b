// What all forms of the page do.

import { clock, element } from "./words.js";

const OUTCOMES_MAX = 8;

/** The ways to publish, in words. */
export const WAYS = { rest: "REST", endpoint: "the push server's endpoint", socket: "the open socket" };

/** Ask the inspector for something; what goes wrong is in the answer's `error`. */
export async function ask(path, body) {
  let answer;
  try {
    answer = await fetch(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
  } catch {
    return { error: "The inspector does not answer: is it still running?" };
  }
  return answer.json().catch(() => ({ error: `The inspector answered ${answer.status}.` }));
}

export const errorBox = (text) => element("p", { class: "error" }, text);

/** Run something for as long as a button is pressed, so to say: once at a time. */
export async function once(button, work) {
  if (button.disabled) return;
  button.disabled = true;
  try {
    await work();
  } finally {
    button.disabled = false;
  }
}

export function table(caption, heads, rows) {
  const head = element("tr", {}, ...heads.map((name) => element("th", { scope: "col" }, name)));
  return element("table", {}, element("caption", {}, caption), element("thead", {}, head), element("tbody", {}, ...rows));
}

/** Say what became of an order, above what became of those before it. */
export function addOutcome(list, look, text) {
  list.prepend(element("li", { class: look }, `${clock(Date.now() / 1000)}  ${text}`));
  if (list.childElementCount > OUTCOMES_MAX) list.lastElementChild.remove();
}
