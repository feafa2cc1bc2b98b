// The page of one client: what comes from the inspector, and who gets it.

import { Board } from "./board.js";
import { showEvent } from "./detail.js";
import { queued } from "./panels.js";
import { Plot } from "./plot.js";
import { drawFigure, drawState, listen } from "./stream.js";
import { show } from "./tabs.js";
import { count, seconds } from "./words.js";

const $ = (id) => document.getElementById(id);

// The key has done its work: it need not stand in the history, nor be seen over a shoulder.
history.replaceState(null, "", "/");

const about = await (await fetch("about")).json();
$("portal").textContent = about.portal;
document.title = `${about.portal} – inspector`;

const plot = new Plot($("plot"), $("readout"), $("range"));
const board = new Board(about.events_max, { onChoose: showEvent, onOpen: () => show("event", { focus: true }) });

function drawFigures(look, rate) {
  drawFigure("received", count(look.received));
  drawFigure("rate", rate.toFixed(rate < 10 ? 1 : 0));
  drawFigure("lag", seconds(look.lag_s), look.lag_s > 5 ? "alarm" : "");
  drawFigure("healed", count(look.healed), look.healed ? "fine" : "");
  drawFigure("gaps", count(look.gaps), look.gaps ? "alarm" : "");
  drawFigure("connects", count(look.connects));
  drawFigure("silent", seconds(look.silent_for_s));
  drawFigure("transport", look.transport ? `${look.transport.replace("_", " ")}, v${look.server_version}` : "–");
  const next = look.next_attempt_in_s === null ? "" : ` Next attempt in ${seconds(look.next_attempt_in_s)}.`;
  drawState(look.state, look.last_error && `${look.last_error.replace(/\.$/, "")}.${next}`);
}

listen({
  board,
  plot,
  onEvents: (entries) => {
    if (entries.some(({ module, command }) => module === "rest" && command === "event_offline")) queued();
  },
  onLook: drawFigures,
});
