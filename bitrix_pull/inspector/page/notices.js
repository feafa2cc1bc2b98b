// What has happened, in sentences, the newest first.

import { clock, element } from "./words.js";

const NOTICES_MAX = 200;

const $ = (id) => document.getElementById(id);

export function addNotices(notices) {
  const list = $("notices");
  for (const { at, level, text } of notices) {
    list.prepend(element("li", { "data-level": level }, element("time", {}, clock(at)), element("p", {}, text)));
    if (list.childElementCount > NOTICES_MAX) list.lastElementChild.remove();
  }
  $("notices-none").hidden = list.childElementCount > 0;
}
