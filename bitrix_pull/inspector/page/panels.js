// The tools of a client's page: publishing, presence, the offline queue, the doctor.

import { addOutcome, ask, errorBox, once, table, WAYS } from "./forms.js";
import { isShown, opened } from "./tabs.js";
import { clock, count, element, seconds } from "./words.js";

const AGAIN_MS = 10_000;
const QUEUE_CALM_MS = 2_000;

const $ = (id) => document.getElementById(id);

// -- publishing -------------------------------------------------------------------

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
    addOutcome($("outcomes"), look, `${order.command}: ${word}`);
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
