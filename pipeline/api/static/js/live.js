// The live page: follows the feed and hands each part what is its own.

import { showAlerts } from "./alerts.js";
import { VenueDay } from "./day.js";
import { $, el, keyed, say } from "./dom.js";
import { follow } from "./feed.js";
import { duration, moment, number, share } from "./format.js";
import { showHealth } from "./health.js";
import { Map as VenueMap } from "./map.js";
import { search } from "./search.js";
import { showTop } from "./top.js";

const day = new VenueDay();
const map = new VenueMap($("map"), (venue) => choose(venue));
let order = "fullness";
let latest = null;
let received = performance.now();

search($("search"), (venue) => choose(venue.venue_id));

for (const button of document.querySelectorAll("[data-order]")) {
  button.addEventListener("click", () => {
    order = button.dataset.order;
    for (const each of document.querySelectorAll("[data-order]")) each.setAttribute("aria-pressed", String(each === button));
    if (latest?.top) showVenues(latest);
  });
}

function showVenues({ top }) {
  const button = document.querySelector('[data-order="expected_fullness"]');
  button.hidden = !top.expected_fullness.length;
  if (button.hidden && order === "expected_fullness") document.querySelector('[data-order="fullness"]').click();
  else showTop($("top"), top[order], choose, order === "expected_fullness");
}

function choose(venueId, scroll = true) {
  day.show(venueId);
  if (scroll) $("day").scrollIntoView({ block: "nearest", behavior: "smooth" });
}

follow(
  (view, changed) => {
    latest = view;
    received = performance.now();
    const parts = {
      figures: () => showFigures(view),
      top: () => {
        showVenues(view);
        if (!day.venueId && view.top[order][0]) choose(view.top[order][0].venue_id, false);
      },
      map: () => {
        map.show(view.map, view.levels);
        say($("map-summary"), `counted, ${number(view.map.fixed.reduce((sum, [, , venues]) => sum + venues, 0))} venues in ${number(view.map.fixed.length)} places`);
      },
      areas: () => showAreas(view.areas.items),
      health: () => showHealth(view.health),
    };
    for (const name of changed) parts[name]?.();
    if (changed.includes("alerts") || changed.includes("figures")) showAlerts(view.alerts, view.figures?.as_of);
    if (changed.includes("figures")) day.refresh(view.figures.as_of);
  },
  (state, view) => {
    document.body.dataset.state = state;
    $("pulse").dataset.state = state;
    const asOf = view?.figures ? moment(view.figures.as_of, undefined, true) : "";
    say($("pulse").lastElementChild, { live: `live · ${asOf}`, stale: `stale · ${asOf}`, lost: "connection lost" }[state]);
    showBanner(state, view, asOf);
    showAge();
  },
);

function showBanner(state, view, asOf) {
  const banner = $("banner");
  banner.hidden = state === "live";
  banner.dataset.state = state;
  if (state === "live") return;
  const [title, text] = {
    lost: ["Connection lost.", asOf ? `These figures are as of ${asOf}. Trying again …` : "Trying again …"],
    stale: view?.health?.store_answers === false
      ? ["The store does not answer.", `${view.health.store_problem}. Figures are as of ${asOf || "never"}.`]
      : ["Stale data.", `No new scan for ${duration(age())}. Figures are as of ${asOf}.`],
  }[state];
  const wanted = `${title} ${text}`;
  if (banner.textContent !== wanted) banner.replaceChildren(el("strong", {}, title), ` ${text}`.trimStart());
  if (banner.textContent !== wanted) banner.firstChild.append(" ");
}

function age() {
  const health = latest?.health;
  return health?.data_age_seconds == null ? null : health.data_age_seconds + Math.floor((performance.now() - received) / 1000);
}

function showAge() {
  const box = $("figures").querySelector('[data-key="age"] .value');
  if (box) say(box, duration(age()));
}

function showFigures({ figures, health }) {
  const full = figures.full ? "warn" : "";
  const expected = figures.expected == null ? "no model of presence in force" : null;
  const items = [
    { key: "people", title: "People inside, counted", value: number(figures.people), more: expected ?? [["b", `expected ${number(figures.expected)}`], figures.check_out_share == null ? "" : ` · ${share(figures.check_out_share)} check out`] },
    { key: "open", title: "Venues with people", value: number(figures.open), of: number(figures.venues), more: `${share(figures.venues ? figures.open / figures.venues : null)} of all venues` },
    { key: "full", title: "At or over capacity", value: number(figures.full), more: figures.full_expected == null ? "counted" : ["counted; ", ["b", `expected ${number(figures.full_expected)}`]], tone: full },
    { key: "nearly", title: "Nearly full", value: number(figures.nearly_full), more: "counted, from 90 % on" },
    { key: "age", title: "Age of the data", value: duration(age()), more: health?.clock === "events" ? "since another scan came" : "since the newest scan" },
  ];
  keyed(
    $("figures"),
    items,
    (item) => item.key,
    () => el("dl", { className: "figure" }, el("dt"), el("dd", { className: "value" }), el("dd", { className: "more" })),
    (box, item) => {
      box.className = `figure ${item.tone ?? ""}`;
      const [title, value, more] = box.children;
      say(title, item.title);
      const text = item.of ? `${item.value} of ${item.of}` : item.value;
      if (value.textContent !== text) value.replaceChildren(item.value, ...(item.of ? [el("small", {}, ` of ${item.of}`)] : []));
      const parts = [].concat(item.more);
      const plain = Array.isArray(item.more) ? item.more.map((part) => (Array.isArray(part) ? part[1] : part)).join("") : item.more;
      if (more.textContent !== plain) {
        more.replaceChildren(...(Array.isArray(item.more) ? item.more : parts).map((part) => (Array.isArray(part) ? el(part[0], {}, part[1]) : part)));
      }
    },
  );
}

function showAreas(items) {
  keyed(
    $("areas"),
    items,
    (item) => item.area,
    () => el("tr", {}, el("th", { attrs: { scope: "row" } }), ...Array.from({ length: 5 }, () => el("td", { className: "n" }))),
    (row, item) => {
      const cells = [item.area || "no area", number(item.people), item.expected == null ? "–" : number(item.expected), `${number(item.open)} of ${number(item.venues)}`, share(item.ratio), number(item.full)];
      cells.forEach((text, at) => say(row.children[at], text));
    },
  );
}
