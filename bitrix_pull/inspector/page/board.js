// The table of events with its filter, its pause and its counter: what every page of the inspector has.

import { Events } from "./events.js";
import { Table } from "./table.js";
import { count } from "./words.js";

const $ = (id) => document.getElementById(id);

export class Board {
  #events;
  #table;
  #added = 0;
  #isDue = false;

  /** @param most how many events are kept
   *  @param onChoose gets the event whose row was chosen
   *  @param onOpen is called when a person wants to read on there */
  constructor(most, { onChoose, onOpen }) {
    this.#events = new Events(most);
    this.#table = new Table($("grid"), $("rows"), this.#events, {
      onChoose: (event) => {
        onChoose(event);
        if (matchMedia("(max-width: 900px)").matches) document.querySelector(".side").scrollIntoView({ block: "nearest" });
      },
      onOpen,
      onPause: () => this.#togglePause(),
    });
    $("filter").addEventListener("input", () => this.#refilter());
    $("filter").addEventListener("submit", (submit) => submit.preventDefault());
    $("pause").addEventListener("click", () => this.#togglePause());
    this.#redraw();
  }

  /** Take in a portion of the stream. */
  take(portion) {
    this.#added += this.#events.add(portion);
    offer($("by-module"), new Set(["", ...this.#events.modules]), (name) => new Option(name, name));
    offer($("commands"), this.#events.commands, (name) => new Option("", name));
    if ($("portals")) offer($("portals"), this.#events.portals, (name) => new Option("", name));
    this.#redraw();
  }

  /** Draw once a frame, however much has come. */
  #redraw() {
    if (this.#isDue) return;
    this.#isDue = true;
    requestAnimationFrame(() => {
      this.#isDue = false;
      if (this.#added) this.#table.shift(this.#added);
      this.#added = 0;
      this.#table.draw();
      this.#drawCount();
    });
  }

  #drawCount() {
    const events = this.#events;
    const [shown, kept] = [events.length, events.kept];
    const held = events.isPaused ? ` · ${count(events.held)} held` : "";
    $("count").textContent = (events.isFiltered ? `${count(shown)} of ${count(kept)}` : count(shown)) + held;
    $("nothing").hidden = shown > 0;
    $("nothing").querySelector("strong").textContent = kept ? "No event passes the filter." : "No events yet.";
    $("nothing").querySelector("p + p").hidden = kept > 0;
  }

  #refilter() {
    const by = (name) => $(`by-${name}`)?.value.trim() ?? "";
    this.#events.filter({ portal: by("portal"), module: by("module"), command: by("command"), text: by("text") });
    this.#table.toTop();
    this.#redraw();
  }

  #togglePause() {
    if (this.#events.isPaused) this.#events.resume();
    else this.#events.pause();
    $("pause").setAttribute("aria-pressed", this.#events.isPaused);
    $("pause").textContent = this.#events.isPaused ? "Go on" : "Pause";
    if (!this.#events.isPaused) this.#table.toTop();
    this.#redraw();
  }
}

function offer(list, names, make) {
  if (list.childElementCount >= names.size) return;
  const known = new Set([...list.children].map((option) => option.value));
  for (const name of [...names].filter((name) => !known.has(name))) list.append(make(name));
}
