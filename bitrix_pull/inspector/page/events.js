// The events that this page keeps: the newest, in bounded memory, and those of them that pass the filter.

const MOST_CHARACTERS = 16 * 1024 * 1024;
const MOST_NAMES = 200;

/** A number of things at most; the oldest make room. */
class Ring {
  #items;
  #start = 0;
  length = 0;

  constructor(size) {
    this.#items = new Array(size);
  }

  at(index) {
    return this.#items[(this.#start + index) % this.#items.length];
  }

  get isFull() {
    return this.length === this.#items.length;
  }

  push(item) {
    this.#items[(this.#start + this.length) % this.#items.length] = item;
    this.length += 1;
  }

  shift() {
    const item = this.at(0);
    this.#items[this.#start] = undefined;
    this.#start = (this.#start + 1) % this.#items.length;
    this.length -= 1;
    return item;
  }
}

/** Events by number, oldest first. `shown` are those that pass the filter, and stands still in a pause. */
export class Events {
  portals = new Set();
  modules = new Set();
  commands = new Set();
  total = 0;
  #kept;
  #characters = 0;
  #shown = [];
  #skipped = 0;
  #filter = { portal: "", module: "", command: "", text: "" };
  #pausedAt = null;

  constructor(most) {
    // One more is there for a moment, before the oldest goes.
    this.#kept = new Ring(most + 1);
  }

  get kept() {
    return this.#kept.length;
  }

  get length() {
    return this.#shown.length - this.#skipped;
  }

  /** Of those that are shown, the one at a place, counted from the newest. */
  newest(place) {
    return this.#shown[this.#shown.length - 1 - place];
  }

  /** Where an event stands, counted from the newest; -1 if it is not shown. */
  placeOf(number) {
    let low = this.#skipped;
    let high = this.#shown.length - 1;
    while (low <= high) {
      const middle = (low + high) >> 1;
      const found = this.#shown[middle].number;
      if (found === number) return this.#shown.length - 1 - middle;
      if (found < number) low = middle + 1;
      else high = middle - 1;
    }
    return -1;
  }

  get isPaused() {
    return this.#pausedAt !== null;
  }

  /** How many have come since the pause began. */
  get held() {
    return this.isPaused ? this.total - this.#pausedAt.total : 0;
  }

  pause() {
    this.#pausedAt = { total: this.total, last: this.#kept.length ? this.#kept.at(this.#kept.length - 1).number : -1 };
  }

  resume() {
    this.#pausedAt = null;
    this.#sift();
  }

  filter(by) {
    this.#filter = { ...by, portal: by.portal.toLowerCase(), command: by.command.toLowerCase(), text: by.text.toLowerCase() };
    this.#sift();
  }

  get isFiltered() {
    return Object.values(this.#filter).some(Boolean);
  }

  /** Take in a portion of the stream; returns how many of it are shown now. */
  add({ first, missed, entries }) {
    let added = 0;
    if (missed) added += this.#take({ number: first - 0.5, missed, size: 0, params: "" });
    entries.forEach((event, index) => {
      event.number = first + index;
      this.total += 1;
      if (event.portal && this.portals.size < MOST_NAMES) this.portals.add(event.portal);
      if (this.modules.size < MOST_NAMES) this.modules.add(event.module);
      if (this.commands.size < MOST_NAMES) this.commands.add(event.command);
      added += this.#take(event);
    });
    return added;
  }

  #take(event) {
    this.#kept.push(event);
    this.#characters += event.params.length;
    while (this.#kept.length > 1 && (this.#kept.isFull || this.#characters > MOST_CHARACTERS)) {
      const gone = this.#kept.shift();
      this.#characters -= gone.params.length;
      if (!this.isPaused && this.length && this.#shown[this.#skipped] === gone) this.#skip();
    }
    if (this.isPaused || !this.#passes(event)) return 0;
    this.#shown.push(event);
    return 1;
  }

  #skip() {
    this.#shown[this.#skipped] = undefined;
    this.#skipped += 1;
    if (this.#skipped > 2000) {
      this.#shown.splice(0, this.#skipped);
      this.#skipped = 0;
    }
  }

  #sift() {
    const last = this.#pausedAt?.last ?? Infinity;
    this.#shown = [];
    this.#skipped = 0;
    for (let index = 0; index < this.#kept.length; index += 1) {
      const event = this.#kept.at(index);
      if (event.number <= last && this.#passes(event)) this.#shown.push(event);
    }
  }

  #passes(event) {
    if (event.missed) return true;
    const { portal, module, command, text } = this.#filter;
    return (
      (!portal || event.portal.toLowerCase().includes(portal)) &&
      (!module || event.module === module) &&
      (!command || event.command.toLowerCase().includes(command)) &&
      (!text || event.params.toLowerCase().includes(text))
    );
  }
}
