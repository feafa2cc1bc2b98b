// What the inspector tells, as it happens: events, notices and figures; and what is said of the contact with it.

import { addNotices } from "./notices.js";
import { stateLook, stateName } from "./words.js";

const DESCRIBE_MS = 10_000;
const TELL_MS = 2_000;

const $ = (id) => document.getElementById(id);

export function listen({ board, plot, onEvents = () => {}, onLook }) {
  const stream = new EventSource("stream");

  stream.addEventListener("events", ({ data }) => {
    const portion = JSON.parse(data);
    board.take(portion);
    onEvents(portion.entries);
  });

  stream.addEventListener("notices", ({ data }) => {
    const { entries } = JSON.parse(data);
    addNotices(entries);
    plot.addNotices(entries);
    if (isSettled) tell(entries.findLast((notice) => notice.level));
    plot.draw();
  });

  const recent = [];

  stream.addEventListener("looks", ({ data }) => {
    const { entries } = JSON.parse(data);
    plot.addLooks(entries);
    const look = entries.at(-1);
    recent.push(...entries.slice(-10));
    while (recent.length > 1 && look.at - recent[0].at > 3) recent.shift();
    const time = look.at - recent[0].at;
    onLook(look, time > 0 ? Math.max(0, look.received - recent[0].received) / time : 0);
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

  // What screen readers are told: changes of the connection, not each event.
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
}

export function drawFigure(name, text, mood = "") {
  $(`f-${name}`).textContent = text;
  $(`f-${name}`).parentElement.className = mood;
}

export function drawState(state, trouble, name = stateName(state)) {
  $("state").dataset.look = stateLook(state);
  $("state-name").textContent = name;
  $("trouble").hidden = !trouble;
  $("trouble").textContent = trouble;
}
