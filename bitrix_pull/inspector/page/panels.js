// The tabs and what is in them.

import { draw, read } from "./tree.js";
import { bytes, clock, count, element, seconds } from "./words.js";

const NOTICES_MAX = 200;
const OUTCOMES_MAX = 8;
const AGAIN_MS = 10_000;
const QUEUE_CALM_MS = 2_000;

const $ = (id) => document.getElementById(id);

async function ask(path, body) {
  let answer;
  try {
    answer = await fetch(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
  } catch {
    return { error: "The inspector does not answer: is it still running?" };
  }
  return answer.json().catch(() => ({ error: `The inspector answered ${answer.status}.` }));
}

const errorBox = (text) => element("p", { class: "error" }, text);

/** Run something for as long as a button is pressed, so to say: once at a time. */
async function once(button, work) {
  if (button.disabled) return;
  button.disabled = true;
  try {
    await work();
  } finally {
    button.disabled = false;
  }
}

// -- tabs -------------------------------------------------------------------------

const tabs = [...document.querySelectorAll("[role=tab]")];
const opened = new Map();

export function show(name, { focus = false } = {}) {
  for (const tab of tabs) {
    const isIt = tab.id === `tab-${name}`;
    tab.setAttribute("aria-selected", isIt);
    tab.tabIndex = isIt ? 0 : -1;
    if (isIt) tab.scrollIntoView({ block: "nearest", inline: "nearest" });
    $(tab.getAttribute("aria-controls")).hidden = !isIt;
  }
  if (focus) $(`panel-${name}`).focus();
  opened.get(name)?.();
}

const isShown = (name) => !$(`panel-${name}`).hidden;

for (const tab of tabs) {
  tab.addEventListener("click", () => show(tab.id.slice(4)));
  tab.addEventListener("keydown", (key) => {
    const places = { ArrowRight: tabs.indexOf(tab) + 1, ArrowLeft: tabs.indexOf(tab) - 1, Home: 0, End: tabs.length - 1 };
    if (!(key.key in places)) return;
    key.preventDefault();
    const next = tabs.at(places[key.key] % tabs.length);
    show(next.id.slice(4));
    next.focus();
  });
}

// -- an event ---------------------------------------------------------------------

let event = null;

export function showEvent(chosen) {
  event = chosen;
  show("event");
  $("event-none").hidden = true;
  $("event").hidden = false;
  $("event-name").textContent = `${event.module}.${event.command}`;
  $("copied").textContent = "";
  const how = [event.kind, event.replayed && "replayed", event.healed && "healed"].filter(Boolean).join(", ");
  const facts = [
    ["Received", clock(event.at, true)],
    ["Created", event.created ? clock(event.created) : "–"],
    ["From", event.sender === "backend" ? "the portal" : event.sender],
    ["Kind", how],
    ["Size", bytes(event.size)],
    ["Mid", event.mid],
  ];
  if (event.cut) facts.push(["Note", "Too large to be shown whole."]);
  $("event-facts").replaceChildren(...facts.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
  draw($("params"), read(event.params));
  draw($("extra"), read(event.extra));
}

async function copy(text, told) {
  try {
    await navigator.clipboard.writeText(text);
    $("copied").textContent = told;
  } catch {
    $("test-text").value = text;
    $("test-dialog").showModal();
    $("test-text").select();
  }
}

$("copy-params").addEventListener("click", () => copy(event.params, "Copied."));
$("copy-test").addEventListener("click", async () => {
  const answer = await fetch(`events/${event.number}/test`).catch(() => null);
  const { test, error } = answer ? await answer.json() : { error: "The inspector does not answer." };
  if (error) $("copied").textContent = error;
  else await copy(test, "Copied: a test of your handler.");
});

// -- notices ----------------------------------------------------------------------

export function addNotices(notices) {
  const list = $("notices");
  for (const { at, level, text } of notices) {
    list.prepend(element("li", { "data-level": level }, element("time", {}, clock(at)), element("p", {}, text)));
    if (list.childElementCount > NOTICES_MAX) list.lastElementChild.remove();
  }
  $("notices-none").hidden = list.childElementCount > 0;
}

// -- publishing -------------------------------------------------------------------

const WAYS = { rest: "REST", endpoint: "the push server's endpoint", socket: "the open socket" };

$("publish").elements.users.addEventListener("input", () => ($("publish").elements.to.value = "users"));
$("publish").addEventListener("submit", (submit) => {
  submit.preventDefault();
  const form = submit.target;
  once(form.querySelector(".main"), async () => {
    const order = Object.fromEntries(new FormData(form));
    const answer = await ask("publish", order);
    const word = answer.error
      ? answer.error
      : answer.confirmed
        ? `Accepted by ${WAYS[answer.route]} in ${(answer.took_s * 1000).toFixed(0)} ms.`
        : `Sent by ${WAYS[answer.route]} in ${(answer.took_s * 1000).toFixed(0)} ms; this way is never confirmed.`;
    const look = answer.error ? "bad" : answer.confirmed ? "good" : "warn";
    $("outcomes").prepend(element("li", { class: look }, `${clock(Date.now() / 1000)}  ${order.command}: ${word}`));
    if ($("outcomes").childElementCount > OUTCOMES_MAX) $("outcomes").lastElementChild.remove();
  });
});

// -- presence ---------------------------------------------------------------------

async function askPresence() {
  const answer = await ask("online", { users: $("presence").elements.users.value });
  if (answer.error) {
    $("presence-answer").replaceChildren(errorBox(answer.error));
    return;
  }
  const rows = answer.users.map(({ id, online, last_seen_s }) =>
    element(
      "tr",
      {},
      element("td", {}, String(id)),
      element("td", { class: online ? "yes" : "no" }, online ? "● online" : "○ offline"),
      element("td", {}, online ? "now" : last_seen_s === null ? "not known" : `${seconds(last_seen_s)} ago`),
    ),
  );
  $("presence-answer").replaceChildren(table(`Asked at ${clock(Date.now() / 1000)}`, ["User", "Is", "Last seen"], rows));
}

$("presence").addEventListener("submit", (submit) => {
  submit.preventDefault();
  once(submit.target.querySelector(".main"), askPresence);
});
setInterval(() => {
  if ($("presence-again").checked && isShown("presence") && !document.hidden) askPresence();
}, AGAIN_MS);

function table(caption, heads, rows) {
  const head = element("tr", {}, ...heads.map((name) => element("th", { scope: "col" }, name)));
  return element("table", {}, element("caption", {}, caption), element("thead", {}, head), element("tbody", {}, ...rows));
}

// -- the offline queue ------------------------------------------------------------

async function lookAtQueue() {
  const answer = await ask("queue", {});
  if (answer.error) {
    $("queue-answer").replaceChildren(errorBox(answer.error));
    return;
  }
  const tally = element(
    "dl",
    { class: "tally" },
    ...Object.entries(answer.counts).map(([name, number]) =>
      element("div", name === "failed" && number ? { class: "alarm" } : {}, element("dt", {}, name), element("dd", {}, count(number) + (answer.more ? "+" : ""))),
    ),
  );
  const bound = answer.bound.map(({ event, connector }) => (connector ? `${event} (${connector})` : event));
  const boundBox = element(
    "dl",
    { class: "facts" },
    element("dt", {}, "Bound"),
    element("dd", {}, bound.length ? bound.join(", ") : "nothing: the portal queues no events for this application"),
  );
  const rows = answer.records.map((record) =>
    element(
      "tr",
      {},
      element("td", {}, record.event, element("br"), element("code", {}, record.data)),
      element("td", { class: "brief" }, record.standing),
      element("td", { class: "brief" }, record.changed_at.replace("T", " ").slice(0, 19)),
    ),
  );
  const parts = [tally, element("p"), boundBox];
  if (rows.length) parts.push(table("The newest", ["Event", "Is", "Changed (portal's time)"], rows));
  $("queue-answer").replaceChildren(...parts);
}

const lookOnce = () => once($("queue-look"), lookAtQueue);
$("queue-look").addEventListener("click", lookOnce);
opened.set("queue", lookOnce);

let isLooking = false;

/** The portal has said that something was queued. */
export function queued() {
  if (!isShown("queue") || isLooking) return;
  isLooking = true;
  setTimeout(() => {
    isLooking = false;
    lookOnce();
  }, QUEUE_CALM_MS);
}

// -- the doctor ---------------------------------------------------------------------

const LEVELS = { ok: "✓", warn: "!", fail: "✕" };
const VERDICTS = { ok: "All is well.", warn: "It works, but see the warnings.", fail: "Something keeps events from coming." };

$("doctor").addEventListener("submit", (submit) => {
  submit.preventDefault();
  once(submit.target.querySelector(".main"), async () => {
    $("doctor-answer").replaceChildren(element("p", { class: "hint" }, "Examining …"));
    const answer = await ask("diagnose", { publish: submit.target.elements.publish.checked });
    if (answer.error) {
      $("doctor-answer").replaceChildren(errorBox(answer.error));
      return;
    }
    const findings = answer.findings.map(({ check, level, told, advice, took_s }) => {
      const took = took_s === null ? "" : ` ${(took_s * 1000).toFixed(0)} ms`;
      const text = element("div", {}, element("strong", {}, check), element("small", {}, took), element("p", {}, `${told}${advice ? "." : ""}`));
      if (advice) text.append(element("p", { class: "advice" }, advice));
      const sign = element("span", { class: "sign", role: "img", "aria-label": level }, LEVELS[level]);
      return element("li", { "data-level": level }, sign, text);
    });
    $("doctor-answer").replaceChildren(
      element("p", { class: "verdict", "data-level": answer.level }, VERDICTS[answer.level]),
      element("ol", { class: "findings" }, ...findings),
    );
  });
});
