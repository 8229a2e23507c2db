// A combobox over the venues: type, arrow keys, Enter.

import { ask } from "./access.js";
import { el } from "./dom.js";
import { number } from "./format.js";

const PAUSE_MS = 150;
let count = 0;

export function search(box, choose) {
  const list = `venues-${++count}`;
  const input = el("input", {
    type: "search", autocomplete: "off", placeholder: "Find a venue by name …",
    attrs: { role: "combobox", "aria-label": "Find a venue by name", "aria-autocomplete": "list", "aria-expanded": "false", "aria-controls": list },
  });
  const options = el("ul", { id: list, hidden: true, attrs: { role: "listbox", "aria-label": "Venues found" } });
  box.append(input, options);
  let found = [];
  let at = -1;
  let timer = 0;
  let asked = 0;

  const mark = (next) => {
    at = next;
    [...options.children].forEach((option, index) => option.setAttribute("aria-selected", String(index === at)));
    if (at >= 0) {
      input.setAttribute("aria-activedescendant", options.children[at].id);
      options.children[at].scrollIntoView({ block: "nearest" });
    } else input.removeAttribute("aria-activedescendant");
  };
  const close = () => {
    options.hidden = true;
    input.setAttribute("aria-expanded", "false");
    mark(-1);
  };
  const take = (index) => {
    input.value = found[index].name;
    close();
    choose(found[index]);
  };
  const look = async () => {
    const mine = ++asked;
    const text = input.value.trim();
    if (!text) return close();
    const answer = await ask(`/api/v1/venues?limit=12&sort=occupancy&q=${encodeURIComponent(text)}`).catch(() => null);
    if (mine !== asked || !answer) return undefined;
    found = answer.items;
    options.replaceChildren(
      ...found.map((venue, index) =>
        el("li", { id: `${list}-${index}`, onmousedown: (event) => { event.preventDefault(); take(index); }, attrs: { role: "option", "aria-selected": "false" } }, venue.name, el("span", {}, `${venue.category} · ${number(venue.occupancy)}`)),
      ),
    );
    options.hidden = !found.length;
    input.setAttribute("aria-expanded", String(found.length > 0));
    return mark(-1);
  };
  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(look, PAUSE_MS);
  });
  input.addEventListener("keydown", (event) => {
    if (event.key === "Escape") return close();
    if (event.key === "Enter" && found.length && !options.hidden) {
      event.preventDefault();
      return take(Math.max(0, at));
    }
    if (options.hidden || !["ArrowDown", "ArrowUp"].includes(event.key)) return undefined;
    event.preventDefault();
    return mark((at + (event.key === "ArrowDown" ? 1 : -1) + found.length) % found.length);
  });
  input.addEventListener("blur", close);
}
