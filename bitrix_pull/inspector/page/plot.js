// The connection over time: its state as a band, events a second and lag as lines, and what befell it.

import { clock, seconds, stateLook, stateName } from "./words.js";

const LOOKS_MAX = 1000;
const NOTICES_MAX = 500;
const HEIGHT = 116;
const BAND = { top: 2, height: 10 };
const AREA = { top: 28, bottom: 96 };
const SIDE = 46;
const LONGEST_SILENCE = 5;
const SHORTEST = 60;

export class Plot {
  #svg;
  #readout;
  #looks = [];
  #states = [];
  #span = 300;
  #pointed = null;
  #names;

  /** @param names what states are called here, where that is not as elsewhere */
  constructor(svg, readout, range, names = {}) {
    this.#names = names;
    this.#svg = svg;
    this.#readout = readout;
    range.addEventListener("change", () => {
      this.#span = Number(range.value);
      this.draw();
    });
    svg.addEventListener("pointermove", (move) => {
      this.#pointed = move.offsetX;
      this.draw();
    });
    svg.addEventListener("pointerleave", () => {
      this.#pointed = null;
      this.draw();
    });
    new ResizeObserver(() => this.draw()).observe(svg);
  }

  addLooks(looks) {
    this.#looks.push(...looks);
    if (this.#looks.length > LOOKS_MAX) this.#looks.splice(0, this.#looks.length - LOOKS_MAX);
  }

  addNotices(notices) {
    this.#states.push(...notices.filter((notice) => notice.state).map(({ at, state }) => ({ at, state })));
    if (this.#states.length > NOTICES_MAX) this.#states.splice(0, this.#states.length - NOTICES_MAX);
  }

  draw() {
    const width = this.#svg.clientWidth;
    const last = this.#looks.at(-1);
    if (!last || !width) return;
    const end = Math.max(last.at, this.#states.at(-1)?.at ?? 0);
    // As long as little is known, that little gets the room.
    const span = Math.min(this.#span, Math.max(SHORTEST, end - this.#looks[0].at));
    const begin = end - span;
    const x = (at) => SIDE + ((at - begin) / span) * (width - 2 * SIDE);
    const { steps, marks } = this.#measure(begin);
    const mostRate = nice(Math.max(...steps.map((step) => step.rate), 1));
    const mostLag = nice(Math.max(...steps.map((step) => step.lag), 0.1));
    const y = (share) => AREA.bottom - share * (AREA.bottom - AREA.top);
    const parts = [this.#band(x, begin, end), axes(x, begin, span, width, mostRate, mostLag)];
    for (const run of runs(steps)) {
      const rate = run.map((step) => `${x(step.at).toFixed(1)},${y(step.rate / mostRate).toFixed(1)}`).join(" ");
      const lag = run.map((step) => `${x(step.at).toFixed(1)},${y(step.lag / mostLag).toFixed(1)}`).join(" ");
      const [from, to] = [x(run[0].at).toFixed(1), x(run.at(-1).at).toFixed(1)];
      parts.push(`<polygon class="area" points="${from},${AREA.bottom} ${rate} ${to},${AREA.bottom}"/>`);
      parts.push(`<polyline class="rate" points="${rate}"/><polyline class="lag" points="${lag}"/>`);
    }
    parts.push(...marks.map((mark) => drawMark(mark, x(mark.at))));
    parts.push(this.#cursor(steps, x, width));
    this.#svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.#svg.innerHTML = parts.join("");
  }

  /** In words, for those who do not see it. */
  describe() {
    const last = this.#looks.at(-1);
    if (!last) return;
    const { steps, marks } = this.#measure(last.at - this.#span);
    const times = (kind) => marks.filter((mark) => mark.kind === kind).length;
    this.#svg.setAttribute(
      "aria-label",
      `The last ${seconds(this.#span)}: ${this.#name(last.state)}; ` +
        `${(steps.at(-1)?.rate ?? 0).toFixed(0)} events a second, at most ${Math.max(0, ...steps.map((step) => step.rate)).toFixed(0)}; ` +
        `lag ${seconds(last.lag_s)}; connected again ${times("again")} times, healed ${times("healed")} times, gaps ${times("gap")}.`,
    );
  }

  #name(state) {
    return this.#names[state] ?? stateName(state);
  }

  /** Rate and lag by the second or more, and what befell the connection. */
  #measure(begin) {
    const width = Math.max(1, this.#span / 300);
    const steps = [];
    const marks = [];
    let previous = null;
    let base = null;
    let lag = 0;
    for (const look of this.#looks) {
      if (previous) {
        if (look.connects > previous.connects && look.connects > 1) marks.push({ at: look.at, kind: "again" });
        if (look.healed > previous.healed) marks.push({ at: look.at, kind: "healed" });
        if (look.gaps > previous.gaps) marks.push({ at: look.at, kind: "gap" });
      }
      base ??= look;
      lag = Math.max(lag, look.lag_s);
      if (look.at - base.at >= width * 0.95) {
        const silence = look.at - base.at > width + LONGEST_SILENCE;
        steps.push({ at: look.at, lag, silence, rate: silence ? 0 : Math.max(0, look.received - base.received) / (look.at - base.at) });
        base = look;
        lag = 0;
      }
      previous = look;
    }
    return { steps: steps.filter((step) => step.at >= begin), marks: marks.filter((mark) => mark.at >= begin) };
  }

  #stretches(end) {
    const changes = [{ at: this.#looks[0].at, state: this.#looks[0].state }, ...this.#states].sort((one, other) => one.at - other.at);
    return changes.map((change, index) => ({ ...change, until: changes[index + 1]?.at ?? end }));
  }

  #band(x, begin, end) {
    return this.#stretches(end)
      .filter(({ until }) => until >= begin)
      .map(({ at, until, state }) => {
        const from = x(Math.max(at, begin));
        const wide = Math.max(1.5, x(until) - from);
        // Trouble is also lower than the rest: colours alone do not tell everybody.
        const look = stateLook(state);
        const low = look === "warn" || look === "bad" ? BAND.height / 2 : 0;
        return `<rect class="s-${look}" x="${from.toFixed(1)}" y="${BAND.top + low}" width="${wide.toFixed(1)}" height="${BAND.height - low}"/>`;
      })
      .join("");
  }

  #cursor(steps, x, width) {
    if (this.#pointed === null || this.#pointed < SIDE || this.#pointed > width - SIDE || !steps.length) {
      this.#readout.textContent = "";
      return "";
    }
    const step = steps.reduce((best, each) => (Math.abs(x(each.at) - this.#pointed) < Math.abs(x(best.at) - this.#pointed) ? each : best));
    const state = this.#stretches(Infinity).findLast(({ at }) => at <= step.at)?.state;
    this.#readout.textContent = `${clock(step.at)} · ${this.#name(state)} · ${step.rate.toFixed(step.rate < 10 ? 1 : 0)}/s · lag ${seconds(step.lag)}`;
    const at = x(step.at).toFixed(1);
    return `<line class="cursor" x1="${at}" x2="${at}" y1="0" y2="${AREA.bottom}"/>`;
  }
}

/** The smallest of 1, 2, 5, 10, … that is not less. */
function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((factor) => factor * power).find((round) => round >= value * 0.999);
}

function* runs(steps) {
  let run = [];
  for (const step of steps) {
    if (step.silence && run.length) {
      yield run;
      run = [];
    }
    run.push(step);
  }
  if (run.length) yield run;
}

function axes(x, begin, span, width, mostRate, mostLag) {
  const every = [15, 30, 60, 180].find((each) => span / each <= 6);
  const ticks = [];
  for (let at = Math.ceil(begin / every) * every; at <= begin + span; at += every) {
    const place = x(at).toFixed(1);
    ticks.push(`<line class="axis" x1="${place}" x2="${place}" y1="${AREA.bottom}" y2="${AREA.bottom + 4}"/>`);
    ticks.push(`<text x="${place}" y="${HEIGHT - 5}" text-anchor="middle">${every % 60 ? clock(at) : clock(at).slice(0, 5)}</text>`);
  }
  return (
    `<line class="axis" x1="${SIDE}" x2="${width - SIDE}" y1="${AREA.bottom}" y2="${AREA.bottom}"/>` +
    `<line class="axis" x1="${SIDE}" x2="${width - SIDE}" y1="${AREA.top}" y2="${AREA.top}" stroke-dasharray="2 4"/>` +
    `<text x="${SIDE - 6}" y="${AREA.top + 4}" text-anchor="end">${label(mostRate)}/s</text><text x="${SIDE - 6}" y="${AREA.bottom + 3}" text-anchor="end">0</text>` +
    `<text x="${width - SIDE + 6}" y="${AREA.top + 4}">${label(mostLag)} s</text><text x="${width - SIDE + 6}" y="${AREA.bottom + 3}">0</text>` +
    ticks.join("")
  );
}

const label = (value) => (value >= 1000 ? `${value / 1000}k` : String(Number(value.toPrecision(1))));

function drawMark({ kind }, place) {
  const at = place.toFixed(1);
  const line = kind === "gap" ? `<line class="gapline" x1="${at}" x2="${at}" y1="14" y2="${AREA.bottom}"/>` : "";
  const sign = { again: "▲", healed: "+", gap: "✕" }[kind];
  const shift = { again: -10, healed: 10, gap: 0 }[kind];
  return `${line}<text class="mark ${kind}" x="${(place + shift).toFixed(1)}" y="24" text-anchor="middle">${sign}</text>`;
}
