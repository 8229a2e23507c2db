// The venues to watch, each with its last three hours as a line.

import { el, keyed, say, svg } from "./dom.js";
import { LEVEL_NAMES, estimate, number, share } from "./format.js";

const WIDTH = 100;
const HEIGHT = 30;

export function showTop(list, venues, choose) {
  keyed(
    list,
    venues,
    (venue) => venue.venue_id,
    (venue) =>
      el(
        "li",
        {},
        el(
          "button",
          { type: "button", onclick: () => choose(venue.venue_id) },
          el("span", {}, el("div", { className: "name" }), el("div", { className: "what" })),
          svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" }, svg("path", { class: "under" }), svg("path", { class: "line" })),
          el("span", { className: "figures-cell" }, el("div", {}, el("b"), el("span", { className: "of" })), el("span", { className: "chip" })),
        ),
      ),
    (row, venue) => {
      const [names, line, figures] = row.firstElementChild.children;
      say(names.children[0], venue.name);
      say(names.children[1], venue.estimate ? estimate(venue.estimate) : `${venue.category}${venue.area ? ` · area ${venue.area}` : ""}`);
      const [under, over] = line.children;
      const path = sparkline(venue.spark);
      over.setAttribute("d", path);
      under.setAttribute("d", `${path}L${WIDTH},${HEIGHT}L0,${HEIGHT}Z`);
      const [[count, of], chip] = [figures.firstElementChild.children, figures.lastElementChild];
      say(count, number(venue.occupancy));
      say(of, venue.capacity == null ? "" : ` of ${number(venue.capacity)}`);
      chip.dataset.level = venue.level;
      say(chip, venue.ratio == null ? LEVEL_NAMES[venue.level] : `${LEVEL_NAMES[venue.level]} · ${share(venue.ratio)}`);
    },
  );
}

function sparkline(values) {
  const most = Math.max(1, ...values);
  const step = WIDTH / Math.max(1, values.length - 1);
  return values.map((value, at) => `${at ? "L" : "M"}${(at * step).toFixed(1)},${(HEIGHT - (value / most) * (HEIGHT - 3) - 1).toFixed(1)}`).join("");
}
