// The tools of a hub's page: workers, portals, who reads the log, publishing.

import { addOutcome, ask, errorBox, once, table, WAYS } from "./forms.js";
import { isShown, opened } from "./tabs.js";
import { bytes, count, element, seconds } from "./words.js";

const AGAIN_MS = 2_000;

const $ = (id) => document.getElementById(id);

// -- looking again: what is shown, about as often as it is known anew ---------------------

const looks = { workers: lookAtCluster, readers: lookAtCluster, portals: lookAtPortals };
let isLooking = false;
let isDue = false;
let looked = 0;

export function lookAgain() {
  if (!document.hidden && performance.now() - looked > AGAIN_MS) lookNow();
}

async function lookNow() {
  const name = Object.keys(looks).find(isShown);
  isDue = isLooking;
  if (!name || isLooking) return;
  isLooking = true;
  looked = performance.now();
  try {
    await looks[name]();
  } finally {
    isLooking = false;
  }
  // Another panel was opened meanwhile, or something else is looked for.
  if (isDue) lookNow();
}

for (const name of Object.keys(looks)) opened.set(name, lookNow);

// -- workers and readers -------------------------------------------------------------

const fact = (name, value, mood = "") => element("div", { class: mood }, element("dt", {}, name), element("dd", {}, value));

function bar(share, mood) {
  const drawn = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  drawn.setAttribute("class", "share");
  drawn.setAttribute("viewBox", "0 0 100 1");
  drawn.setAttribute("preserveAspectRatio", "none");
  drawn.setAttribute("aria-hidden", "true");
  drawn.innerHTML = `<rect class="s-${mood}" width="${(Math.min(Math.max(share, 0), 1) * 100).toFixed(1)}" height="1"/>`;
  return drawn;
}

async function lookAtCluster() {
  const answer = await ask("cluster", {});
  if (answer.error) return;
  $("workers-none").hidden = answer.workers.length > 0;
  $("workers-none").replaceChildren(
    ...(answer.known ? ["No worker is here. To start one: ", element("code", {}, "bitrix-pull hub run --valkey URL")] : ["The engine has not answered yet."]),
  );
  const workers = answer.workers.map((worker) =>
    element(
      "li",
      {},
      element("h3", {}, worker.name, ...(worker.leaving ? [" ", element("span", { class: "badge" }, "leaving")] : [])),
      element(
        "dl",
        { class: "tally" },
        fact("Portals", count(worker.portals)),
        fact("Live", count(worker.live), worker.live < worker.portals ? "alarm" : ""),
        fact("Waiting", bytes(worker.waiting_bytes)),
        fact("Its lease ends in", seconds(worker.expires_in_s)),
      ),
      bar(worker.portals ? worker.live / worker.portals : 0, worker.live < worker.portals ? "warn" : "good"),
    ),
  );
  if (answer.more) workers.push(element("li", { class: "hint" }, `and ${count(answer.more)} more`));
  $("workers").replaceChildren(...workers);
  const readers = answer.groups.map((group) =>
    element(
      "li",
      {},
      element("h3", {}, group.name, ...(group.lost ? [" ", element("span", { class: "badge lost" }, "has lost entries")] : [])),
      element("p", { class: "hint" }, group.stream),
      element(
        "dl",
        { class: "tally" },
        fact("Behind", count(group.behind), group.endangered ? "alarm" : ""),
        fact("In the log", count(group.length)),
      ),
      bar(group.length ? group.behind / group.length : 0, group.endangered ? "bad" : "busy"),
    ),
  );
  $("readers").replaceChildren(...(readers.length ? readers : [element("li", { class: "hint" }, "Nobody reads the log as a group.")]));
}

// -- portals -------------------------------------------------------------------------

async function lookAtPortals() {
  const form = $("find").elements;
  const answer = await ask("portals", { text: form.text.value, wrong: form.wrong.checked });
  if (answer.error) {
    $("found").replaceChildren(errorBox(answer.error));
    return;
  }
  const rows = answer.portals.map(({ key, worker, epoch, error }) =>
    element(
      "tr",
      error || !worker ? { class: "wrong" } : {},
      element("td", {}, key, ...(error ? [element("p", { class: "why" }, error)] : [])),
      element("td", {}, worker || "nobody", element("small", {}, `epoch ${epoch}`)),
    ),
  );
  const told =
    answer.count > rows.length ? `The first ${count(rows.length)} of ${count(answer.count)}` : `${count(answer.count)} portal${answer.count === 1 ? "" : "s"}`;
  $("found").replaceChildren(
    rows.length ? table(told, ["Portal", "Worker"], rows) : element("p", { class: "hint" }, answer.known ? "No portal is so." : "The engine has not answered yet."),
  );
}

$("find").addEventListener("input", lookNow);
$("find").addEventListener("submit", (submit) => submit.preventDefault());

// -- publishing ------------------------------------------------------------------------

$("publish").elements.users.addEventListener("input", () => ($("publish").elements.to.value = "users"));
$("publish").addEventListener("submit", (submit) => {
  submit.preventDefault();
  const form = submit.target;
  once(form.querySelector(".main"), async () => {
    const order = Object.fromEntries(new FormData(form));
    const answer = await ask("publish", order);
    const took = answer.error ? "" : ` in ${(answer.took_s * 1000).toFixed(0)} ms`;
    const [look, word] = answer.error
      ? ["bad", answer.error]
      : answer.outcome === "accepted"
        ? [answer.confirmed ? "good" : "warn", answer.confirmed ? `Accepted by ${WAYS[answer.route]}${took}.` : `Sent by ${WAYS[answer.route]}${took}; this way is never confirmed.`]
        : ["warn", `Whether it was published is not known: ${answer.told}`];
    addOutcome($("outcomes"), look, `${order.portal} ${order.command}: ${word}`);
  });
});
