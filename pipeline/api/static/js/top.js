// The venues to watch, each with its last three hours as a line.

import { el, keyed, say, svg } from "./dom.js";
import { LEVEL_NAMES, estimate, expectedNumber, number, share } from "./format.js";

const WIDTH = 100;
const HEIGHT = 30;

/** `byEstimate`: the expected number stands in front, with its share of the capacity, and the counted one below it. */
export function showTop(list, venues, choose, byEstimate) {
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
      const other = byEstimate ? `counted ${number(venue.occupancy)}` : venue.estimate ? estimate(venue.estimate) : venue.category;
      say(names.children[1], other);
      const [under, over] = line.children;
      const path = sparkline(venue.spark);
      over.setAttribute("d", path);
      under.setAttribute("d", `${path}L${WIDTH},${HEIGHT}L0,${HEIGHT}Z`);
      const [[count, of], chip] = [figures.firstElementChild.children, figures.lastElementChild];
      say(count, byEstimate ? expectedNumber(venue.estimate) : number(venue.occupancy));
      say(of, venue.capacity == null ? "" : ` of ${number(venue.capacity)}`);
      const level = byEstimate ? venue.expected_level : venue.level;
      const ratio = byEstimate ? venue.estimate.expected / venue.capacity : venue.ratio;
      chip.dataset.level = level;
      say(chip, ratio == null ? LEVEL_NAMES[level] : `${LEVEL_NAMES[level]} · ${share(ratio)}`);
    },
  );
}

function sparkline(values) {
  const most = Math.max(1, ...values);
  const step = WIDTH / Math.max(1, values.length - 1);
  return values.map((value, at) => `${at ? "L" : "M"}${(at * step).toFixed(1)},${(HEIGHT - (value / most) * (HEIGHT - 3) - 1).toFixed(1)}`).join("");
}
