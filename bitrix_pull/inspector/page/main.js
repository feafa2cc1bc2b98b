// What comes from the inspector, and who gets it.

import { Events } from "./events.js";
import * as panels from "./panels.js";
import { Plot } from "./plot.js";
import { Table } from "./table.js";
import { count, seconds, stateLook, stateName } from "./words.js";

const DESCRIBE_MS = 10_000;
const TELL_MS = 2_000;

const $ = (id) => document.getElementById(id);

// The key has done its work: it need not stand in the history, nor be seen over a shoulder.
history.replaceState(null, "", "/");

const about = await (await fetch("about")).json();
$("portal").textContent = about.portal;
document.title = `${about.portal} – inspector`;

const events = new Events(about.events_max);
const plot = new Plot($("plot"), $("readout"), $("range"));
const table = new Table($("grid"), $("rows"), events, {
  onChoose: (event) => {
    panels.showEvent(event);
    if (matchMedia("(max-width: 900px)").matches) document.querySelector(".side").scrollIntoView({ block: "nearest" });
  },
  onOpen: () => panels.show("event", { focus: true }),
  onPause: () => togglePause(),
});

// -- drawing: once a frame, however much has come -------------------------------------

let added = 0;
let isDue = false;
let look = null;

function redraw() {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => {
    isDue = false;
    if (added) table.shift(added);
    added = 0;
    table.draw();
    drawCount();
  });
}

function drawCount() {
  const [shown, kept] = [events.length, events.kept];
  const held = events.isPaused ? ` · ${count(events.held)} held` : "";
  $("count").textContent = (events.isFiltered ? `${count(shown)} of ${count(kept)}` : count(shown)) + held;
  $("nothing").hidden = shown > 0;
  $("nothing").querySelector("strong").textContent = kept ? "No event passes the filter." : "No events yet.";
  $("nothing").querySelector("p + p").hidden = kept > 0;
}

function drawFigures(rate) {
  const set = (name, text, mood = "") => {
    $(`f-${name}`).textContent = text;
    $(`f-${name}`).parentElement.className = mood;
  };
  set("received", count(look.received));
  set("rate", rate.toFixed(rate < 10 ? 1 : 0));
  set("lag", seconds(look.lag_s), look.lag_s > 5 ? "alarm" : "");
  set("healed", count(look.healed), look.healed ? "fine" : "");
  set("gaps", count(look.gaps), look.gaps ? "alarm" : "");
  set("connects", count(look.connects));
  set("silent", seconds(look.silent_for_s));
  set("transport", look.transport ? `${look.transport.replace("_", " ")}, v${look.server_version}` : "–");
  $("state").dataset.look = stateLook(look.state);
  $("state-name").textContent = stateName(look.state);
  const next = look.next_attempt_in_s === null ? "" : ` Next attempt in ${seconds(look.next_attempt_in_s)}.`;
  $("trouble").hidden = !look.last_error;
  $("trouble").textContent = look.last_error && `${look.last_error.replace(/\.$/, "")}.${next}`;
}

// -- filter and pause -----------------------------------------------------------------

function refilter() {
  events.filter({ module: $("by-module").value, command: $("by-command").value.trim(), text: $("by-text").value.trim() });
  table.toTop();
  redraw();
}
$("filter").addEventListener("input", refilter);
$("filter").addEventListener("submit", (submit) => submit.preventDefault());

function togglePause() {
  if (events.isPaused) events.resume();
  else events.pause();
  $("pause").setAttribute("aria-pressed", events.isPaused);
  $("pause").textContent = events.isPaused ? "Go on" : "Pause";
  if (!events.isPaused) table.toTop();
  redraw();
}
$("pause").addEventListener("click", togglePause);

function offer(list, names, make) {
  if (list.childElementCount >= names.size) return;
  const known = new Set([...list.children].map((option) => option.value));
  for (const name of [...names].filter((name) => !known.has(name))) list.append(make(name));
}

// -- the stream -----------------------------------------------------------------------

const stream = new EventSource("stream");

stream.addEventListener("events", ({ data }) => {
  const portion = JSON.parse(data);
  added += events.add(portion);
  offer($("by-module"), new Set(["", ...events.modules]), (name) => new Option(name, name));
  offer($("commands"), events.commands, (name) => new Option("", name));
  if (portion.entries.some(({ module, command }) => module === "rest" && command === "event_offline")) panels.queued();
  redraw();
});

stream.addEventListener("notices", ({ data }) => {
  const { first, entries } = JSON.parse(data);
  panels.addNotices(entries);
  plot.addNotices(entries);
  if (isSettled) tell(entries.findLast((notice) => notice.level));
  plot.draw();
});

const recent = [];

stream.addEventListener("looks", ({ data }) => {
  const { entries } = JSON.parse(data);
  plot.addLooks(entries);
  look = entries.at(-1);
  recent.push(...entries.slice(-10));
  while (recent.length > 1 && look.at - recent[0].at > 3) recent.shift();
  const time = look.at - recent[0].at;
  drawFigures(time > 0 ? Math.max(0, look.received - recent[0].received) / time : 0);
  plot.draw();
});

stream.addEventListener("error", () => {
  $("state").dataset.look = "bad";
  $("state-name").textContent = "No contact with the inspector";
  if (stream.readyState === EventSource.CLOSED) {
    $("trouble").hidden = false;
    $("trouble").textContent = "It was stopped, or started anew with another key: open the address that it prints.";
  }
});

// -- what screen readers are told: changes of the connection, not each event --------------

let isSettled = false;
let told = 0;
setTimeout(() => (isSettled = true), TELL_MS);

function tell(notice) {
  const now = performance.now();
  if (!notice || (now - told < TELL_MS && notice.level === "good")) return;
  told = now;
  $("announcer").textContent = notice.text;
}

setInterval(() => plot.describe(), DESCRIBE_MS);
setTimeout(() => plot.describe(), TELL_MS);
redraw();
