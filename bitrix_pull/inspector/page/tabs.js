// Tabs: one panel at a time.

const $ = (id) => document.getElementById(id);

const tabs = [...document.querySelectorAll("[role=tab]")];

/** What is done when a panel is shown, by its name. */
export const opened = new Map();

export function show(name, { focus = false } = {}) {
  for (const tab of tabs) {
    const isIt = tab.id === `tab-${name}`;
    tab.setAttribute("aria-selected", isIt);
    tab.tabIndex = isIt ? 0 : -1;
    if (isIt) tab.scrollIntoView({ block: "nearest", inline: "nearest" });
    $(tab.getAttribute("aria-controls")).hidden = !isIt;
  }
  if (focus) $(`panel-${name}`).focus();
  opened.get(name)?.();
}

export const isShown = (name) => !$(`panel-${name}`).hidden;

for (const tab of tabs) {
  tab.addEventListener("click", () => show(tab.id.slice(4)));
  tab.addEventListener("keydown", (key) => {
    const places = { ArrowRight: tabs.indexOf(tab) + 1, ArrowLeft: tabs.indexOf(tab) - 1, Home: 0, End: tabs.length - 1 };
    if (!(key.key in places)) return;
    key.preventDefault();
    const next = tabs.at(places[key.key] % tabs.length);
    show(next.id.slice(4));
    next.focus();
  });
}
