// What the event that was chosen holds.

import { show } from "./tabs.js";
import { draw, read } from "./tree.js";
import { bytes, clock, element } from "./words.js";

const $ = (id) => document.getElementById(id);

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
    ...(event.portal ? [["Portal", event.portal]] : []),
    ["Size", bytes(event.size)],
    ...(event.mid ? [["Mid", event.mid]] : []),
  ];
  if (event.cut) facts.push(["Note", "Too large to be shown whole."]);
  $("event-facts").replaceChildren(...facts.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
  // What the portal keeps in its queue is no message.
  $("copy-test").hidden = event.kind === "portal";
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
