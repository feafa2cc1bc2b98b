// The page beside hubs: events of all portals, and who serves them.

import { Board } from "./board.js";
import { showEvent } from "./detail.js";
import { lookAgain } from "./hub_panels.js";
import { Plot } from "./plot.js";
import { drawFigure, drawState, listen } from "./stream.js";
import { show } from "./tabs.js";
import { count, seconds } from "./words.js";

const $ = (id) => document.getElementById(id);

// The key has done its work: it need not stand in the history, nor be seen over a shoulder.
history.replaceState(null, "", "/");

const about = await (await fetch("about")).json();
$("hub").textContent = `${about.hub} at ${about.engine}`;
document.title = `${about.hub} – hub inspector`;

const NAMES = { connecting: "Connecting", live: "Engine answers", backoff: "Engine is away" };

function drawFigures(look, rate) {
  drawFigure("received", count(look.received));
  drawFigure("rate", rate.toFixed(rate < 10 ? 1 : 0));
  drawFigure("lag", seconds(look.lag_s), look.lag_s > 5 ? "alarm" : "");
  drawFigure("workers", count(look.workers), look.workers || look.state !== "live" ? "" : "alarm");
  const lost = look.portals - look.owned;
  drawFigure("portals", lost ? `${count(look.owned)} of ${count(look.portals)}` : count(look.portals), lost ? "alarm" : "");
  drawFigure("live", count(look.live), look.live < look.owned ? "alarm" : "");
  drawFigure("failed", count(look.failed), look.failed ? "alarm" : "");
  drawFigure("behind", look.behind === null ? "–" : count(look.behind), look.endangered ? "alarm" : "");
  drawState(look.state, look.last_error && `${look.last_error} What stands below is what was known last.`, NAMES[look.state]);
  lookAgain();
}

listen({
  board: new Board(about.events_max, { onChoose: showEvent, onOpen: () => show("event", { focus: true }) }),
  plot: new Plot($("plot"), $("readout"), $("range"), NAMES),
  onLook: drawFigures,
});
