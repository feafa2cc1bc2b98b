// The table of events. Only the rows that can be seen exist; they are used over and over.

import { clock } from "./words.js";

const SPARE = 4;
const PREVIEW = 300;
const FROM = { backend: "portal", client: "client", unknown: "unknown" };

export class Table {
  #grid;
  #rows;
  #events;
  #pool = [];
  #chosen = null;
  #rowHeight = 0;
  #onChoose;
  #cells;

  constructor(grid, rows, events, { onChoose, onOpen, onPause }) {
    this.#grid = grid;
    this.#rows = rows;
    this.#events = events;
    this.#onChoose = onChoose;
    // The head says which there are.
    this.#cells = [...grid.querySelectorAll("[role=columnheader]")].map((head) => head.className);
    grid.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.draw()).observe(grid);
    rows.addEventListener("click", (click) => {
      const row = click.target.closest("[role=row]");
      if (row) this.#choose(this.#events.placeOf(Number(row.dataset.number)));
    });
    grid.addEventListener("keydown", (key) => {
      if (key.ctrlKey || key.metaKey || key.altKey) return;
      if (key.key === "Enter") onOpen();
      else if (key.key === " ") onPause();
      else if (!this.#move(key.key)) return;
      key.preventDefault();
    });
  }

  /** Keep what is seen where it is, though so many rows have come above it. */
  shift(added) {
    if (this.#grid.scrollTop <= 0) return;
    // First there must be room to go down to.
    this.#rows.style.height = `${this.#events.length * this.#rowHeight}px`;
    this.#grid.scrollTop += added * this.#rowHeight;
  }

  toTop() {
    this.#grid.scrollTop = 0;
  }

  draw() {
    const events = this.#events;
    const height = parseFloat(getComputedStyle(this.#grid).getPropertyValue("--row"));
    this.#rowHeight = height;
    this.#rows.style.height = `${events.length * height}px`;
    this.#grid.setAttribute("aria-rowcount", events.length + 1);
    const begin = Math.max(0, Math.floor(this.#grid.scrollTop / height) - SPARE);
    const end = Math.min(events.length, Math.ceil((this.#grid.scrollTop + this.#grid.clientHeight) / height) + SPARE);
    while (this.#pool.length < end - begin) this.#pool.push(this.#rows.appendChild(makeRow(this.#cells)));
    while (this.#pool.length > end - begin) this.#pool.pop().remove();
    this.#pool.forEach((row, index) => {
      const place = begin + index;
      fill(row, events.newest(place));
      row.style.transform = `translateY(${place * height}px)`;
      row.setAttribute("aria-rowindex", place + 2);
      row.setAttribute("aria-selected", Number(row.dataset.number) === this.#chosen);
    });
    const active = this.#pool.find((row) => Number(row.dataset.number) === this.#chosen);
    if (active) this.#grid.setAttribute("aria-activedescendant", active.id);
    else this.#grid.removeAttribute("aria-activedescendant");
  }

  #move(key) {
    const place = this.#events.placeOf(this.#chosen);
    const page = Math.max(1, Math.floor(this.#grid.clientHeight / this.#rowHeight) - 2);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page };
    if (key === "Home") this.#choose(0);
    else if (key === "End") this.#choose(this.#events.length - 1);
    else if (key in steps) this.#choose(place < 0 ? 0 : place + steps[key]);
    else return false;
    return true;
  }

  #choose(place) {
    if (!this.#events.length) return;
    place = Math.min(Math.max(place, 0), this.#events.length - 1);
    const event = this.#events.newest(place);
    this.#chosen = event.number;
    const head = this.#rows.offsetTop;
    const top = place * this.#rowHeight;
    const bottom = top + this.#rowHeight + head;
    if (top < this.#grid.scrollTop) this.#grid.scrollTop = top;
    else if (bottom > this.#grid.scrollTop + this.#grid.clientHeight) this.#grid.scrollTop = bottom - this.#grid.clientHeight;
    this.draw();
    if (!event.missed) this.#onChoose(event);
  }
}

function makeRow(cells) {
  const row = document.createElement("div");
  row.setAttribute("role", "row");
  for (const name of cells) {
    const cell = row.appendChild(document.createElement("span"));
    cell.className = name;
    cell.setAttribute("role", "gridcell");
  }
  return row;
}

function fill(row, event) {
  if (row.dataset.number === String(event.number)) return;
  row.dataset.number = event.number;
  row.id = `event-${event.number}`;
  const [at, name, from, params] = ["at", "name", "from", "params"].map((cell) => row.querySelector(`.${cell}`));
  const portal = row.querySelector(".portal");
  row.className = event.missed ? "row missed" : "row";
  if (event.missed) {
    name.textContent = `${event.missed.toLocaleString("en")} events went by while this page did not read`;
    at.textContent = from.textContent = params.textContent = "";
    if (portal) portal.textContent = "";
    return;
  }
  if (portal) portal.textContent = event.portal;
  at.textContent = clock(event.at, true);
  const module = document.createElement("i");
  module.textContent = `${event.module}.`;
  const command = document.createElement("b");
  command.textContent = event.command;
  name.replaceChildren(module, command);
  for (const word of ["replayed", "healed"]) {
    if (!event[word]) continue;
    const badge = name.appendChild(document.createElement("span"));
    badge.className = `badge ${word}`;
    badge.textContent = word;
  }
  from.textContent = FROM[event.sender];
  from.dataset.from = event.sender;
  params.textContent = event.params.slice(0, PREVIEW);
}
