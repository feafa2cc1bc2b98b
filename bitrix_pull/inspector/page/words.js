// How times, figures and states are put into words.

const two = (number) => String(number).padStart(2, "0");

export function clock(at, isFine = false) {
  const date = new Date(at * 1000);
  const time = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  return isFine ? `${time}.${String(date.getMilliseconds()).padStart(3, "0")}` : time;
}

export function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 10) return `${value.toFixed(1)} s`;
  if (value < 100) return `${Math.round(value)} s`;
  if (value < 6000) return `${Math.round(value / 60)} min`;
  return `${Math.round(value / 3600)} h`;
}

export const count = (value) => value.toLocaleString("en");

export function bytes(value) {
  return value < 1024 ? `${value} bytes` : value < 1048576 ? `${(value / 1024).toFixed(1)} KiB` : `${(value / 1048576).toFixed(1)} MiB`;
}

const STATES = {
  idle: ["Not started", "calm"],
  configuring: ["Configuring", "busy"],
  connecting: ["Connecting", "busy"],
  catching_up: ["Catching up", "busy"],
  live: ["Live", "good"],
  paused: ["Paused by its handlers", "warn"],
  renewing: ["Live, renewing", "good"],
  backoff: ["Not connected", "warn"],
  closing: ["Closing", "calm"],
  closed: ["Closed", "calm"],
  failed: ["Failed", "bad"],
};

export const stateName = (state) => (STATES[state] ?? [String(state)])[0];
export const stateLook = (state) => (STATES[state] ?? ["", "calm"])[1];

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}
