// The planner's page: how capacity is used over the week, where it is tight, and how large a place would have to be.

import * as echarts from "../vendor/echarts.js";
import { ask, asks } from "./access.js";
import { $, colour, el, onTheme, say, typefaces } from "./dom.js";
import { duration, number, plural, share } from "./format.js";
import { search } from "./search.js";

const DAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const LONG_DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
// The same bounds as the levels of venues.
const BANDS = [
  [0, 0.25, "quiet-bg", "under 25 %"],
  [0.25, 0.5, "quiet", "25–50 %"],
  [0.5, 0.9, "busy", "50–90 %"],
  [0.9, 1, "nearly_full", "90–100 %"],
  [1, 1e9, "full", "100 % and more"],
];
let chart = null;
let plan = null;
let figure = "p95_peak_ratio";
let next = null;
let asked = 0;
let shortened = false;
const TOO_LONG = "the answer took more than";

function query(more = {}) {
  const chosen = { area: $("area").value, category: $("category").value, ...range(), ...more };
  return new URLSearchParams(Object.entries(chosen).filter(([, value]) => value !== "" && value != null)).toString();
}

let asOf = null;
function range() {
  if (!asOf) return {};
  const until = new Date(Math.floor(asOf / 3_600_000 + 1) * 3_600_000);
  return { since: new Date(until.getTime() - $("days").value * 86_400_000).toISOString(), until: until.toISOString() };
}

asks($("csv"));
asks($("parquet"));

async function load() {
  const mine = ++asked;
  say($("range"), "reading …");
  try {
    const [planning, venues] = await Promise.all([ask(`/api/v1/planning?${query()}`), ask(`/api/v1/planning/venues?${query({ limit: 25 })}`)]);
    if (mine !== asked) return;
    plan = planning;
    showFigures();
    const expected = document.querySelector('[data-figure="expected_ratio"]');
    expected.hidden = !plan.week.some((cell) => cell.expected_ratio != null);
    if (expected.hidden && figure === "expected_ratio") document.querySelector('[data-figure="mean_ratio"]').click();
    else drawWeek();
    showAreas();
    $("venues").replaceChildren(...venues.items.map(row));
    offer(venues.next);
    $("banner").hidden = !shortened;
    if (shortened) say($("banner"), `So many days of so many venues take too long: these are ${$("days").value} days. An area or a category takes less.`);
    shortened = false;
    $("csv").href = `/api/v1/planning/download?${query({ format: "csv" })}`;
    $("parquet").href = `/api/v1/planning/download?${query({ format: "parquet" })}`;
  } catch (error) {
    if (mine !== asked) return undefined;
    if (error.message.includes(TOO_LONG) && $("days").selectedIndex > 0) {
      $("days").selectedIndex -= 1;
      shortened = true;
      return load();
    }
    say($("range"), "");
    $("banner").hidden = false;
    say($("banner"), error.message);
  }
  return undefined;
}

function offer(cursor) {
  next = cursor;
  $("more").hidden = !cursor;
}

function showFigures() {
  const day = (instant) => new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" }).format(new Date(instant));
  say($("range"), plan.first_hour ? `${day(plan.first_hour)} – ${day(plan.until)}` : "no data in this range");
  const items = [
    ["95 % of peaks at or below", share(plan.p95_peak_ratio), "of the venue’s capacity, hour by hour"],
    ["Over capacity", hours(plan.minutes_over_capacity), "all venues together"],
    ["Venues that reached 90 %", number(plan.venues_over_90), `of ${number(plan.venues)} with a capacity and people`],
    ["Arrivals", number(plan.arrivals), "persons checked in"],
    plan.counted_to_expected == null
      ? ["Counted to expected", "–", "no model of presence for these hours"]
      : ["Counted to expected", `${plan.counted_to_expected.toFixed(1)} : 1`, "so far the count is above who is really there"],
  ];
  $("figures").replaceChildren(...items.map(([title, value, more]) => el("dl", { className: "figure" }, el("dt", {}, title), el("dd", { className: "value" }, value), el("dd", { className: "more" }, more))));
}

function drawWeek() {
  if (!plan) return;
  chart ??= echarts.init($("week"), null, { renderer: "canvas" });
  const cells = plan.week.map((cell) => [cell.hour, cell.weekday - 1, cell[figure]]);
  const mean = figure !== "p95_peak_ratio";
  const most = Math.max(mean ? 0.2 : 1, ...cells.map(([, , value]) => value));
  const text = { color: colour("soft"), fontFamily: typefaces(), fontSize: 12 };
  chart.setOption(
    {
      animation: false,
      grid: { left: 46, right: 12, top: 8, bottom: 64 },
      // Text drawn on the canvas: a tooltip of HTML would need inline styles, which the page's policy forbids.
      tooltip: { renderMode: "richText", backgroundColor: colour("panel"), borderColor: colour("line"), textStyle: { color: colour("ink"), fontSize: 12 }, formatter: ({ value: [hour, day, ratio] }) => `${LONG_DAYS[day]} ${String(hour).padStart(2, "0")}:00 – ${share(ratio)}\n${peopleIn(plan.week.find((cell) => cell.hour === hour && cell.weekday === day + 1))}` },
      xAxis: { type: "category", data: [...Array(24).keys()].map((hour) => String(hour).padStart(2, "0")), axisLabel: text, axisTick: { show: false }, axisLine: { show: false } },
      yAxis: { type: "category", data: DAYS, inverse: true, axisLabel: text, axisTick: { show: false }, axisLine: { show: false } },
      visualMap: mean
        ? { min: 0, max: most, orient: "horizontal", left: 40, bottom: 4, itemWidth: 12, itemHeight: 160, text: [share(most), "0"], textStyle: text, inRange: { color: [colour("hair"), colour("quiet"), colour("busy")] } }
        : { type: "piecewise", orient: "horizontal", left: 40, bottom: 4, itemWidth: 12, itemHeight: 12, itemGap: 14, textStyle: text, selectedMode: false, pieces: BANDS.map(([gte, lt, name, label]) => ({ gte, lt, color: colour(name), label })) },
      series: [{ type: "heatmap", data: cells, itemStyle: { borderColor: colour("panel"), borderWidth: 2, borderRadius: 4 }, emphasis: { itemStyle: { borderColor: colour("ink") } } }],
    },
    true,
  );
  const busiest = plan.week.filter((cell) => cell[figure] != null).sort((a, b) => b[figure] - a[figure]).slice(0, 3).map((cell) => `${LONG_DAYS[cell.weekday - 1]} ${String(cell.hour).padStart(2, "0")}:00 (${share(cell[figure])})`);
  const meaning = {
    p95_peak_ratio: "95 % of venues’ hours had a counted peak at or below this share of their capacity.",
    mean_ratio: "People counted on average, of the capacity of all venues.",
    expected_ratio: "People expected on average, of the capacity of all venues; an hour without an estimate as counted.",
  }[figure];
  const said = busiest.length ? `Highest: ${busiest.join(", ")}.` : "Nothing is stored of this range.";
  say($("week-note"), `${meaning} ${said}`);
  $("week").setAttribute("aria-label", `Use of capacity by hour and weekday. ${meaning} ${said}`);
}

const peopleIn = (cell) => `${number(cell.mean_people)} people counted on average${cell.expected_people == null ? "" : `, ${number(cell.expected_people)} expected`}`;

function showAreas() {
  $("areas").replaceChildren(
    ...plan.areas.map((area) => el("tr", {}, el("th", { attrs: { scope: "row" } }, area.area || "no area"), el("td", { className: "n" }, number(area.venues)), el("td", { className: "n" }, `${number(area.p95_people)} of ${number(area.capacity)}`), el("td", { className: "n" }, number(area.p95_expected)), el("td", { className: "n" }, el("span", { className: "chip", data: { level: roomLevel(area.headroom_ratio) } }, share(area.headroom_ratio))))),
  );
}

const hours = (minutes) => (minutes < 90 ? duration(minutes * 60) : `${number(minutes / 60)} h`);
const roomLevel = (left) => (left <= 0 ? "full" : left <= 0.1 ? "nearly_full" : left <= 0.5 ? "busy" : "quiet");

function row(venue) {
  const level = venue.p95_peak_ratio >= 1 ? "full" : venue.p95_peak_ratio >= 0.9 ? "nearly_full" : venue.p95_peak_ratio >= 0.5 ? "busy" : "quiet";
  const more = venue.capacity_for_90 - venue.capacity;
  const cells = [number(venue.capacity), number(venue.arrivals), venue.growth == null ? "–" : `${venue.growth > 0 ? "+" : ""}${share(venue.growth)}`, number(venue.highest_peak), number(venue.highest_expected), el("span", { className: "chip", data: { level } }, share(venue.p95_peak_ratio)), hours(venue.minutes_over_capacity), more > 0 ? `${number(venue.capacity_for_90)} (+${number(more)})` : "it is enough"];
  return el("tr", {}, el("th", { attrs: { scope: "row" } }, venue.name), el("td", {}, venue.area ?? ""), ...cells.map((cell) => el("td", { className: "n" }, cell)));
}

async function tellVenue(venue) {
  const { since, until } = range();
  const found = await ask(`/api/v1/venues/${encodeURIComponent(venue.venue_id)}/planning?${new URLSearchParams({ since, until })}`).catch((error) => ({ error }));
  if (found.error) return say($("answer"), found.error.message);
  const { plan: one } = found;
  if (!one) return say($("answer"), `${venue.name} has no capacity registered, or nobody checked in there in this range.`);
  const more = one.capacity_for_90 - one.capacity;
  return $("answer").replaceChildren(
    `${one.name} peaked at ${number(one.highest_peak)}, against a capacity of ${number(one.capacity)}. `,
    ...(more > 0 ? ["A capacity of ", el("b", {}, number(one.capacity_for_90)), ` would have kept every peak under 90 %: ${number(more)} more.`] : ["Its capacity was ", el("b", {}, "enough"), ": every peak stayed under 90 % of it."]),
    one.highest_expected == null ? "" : ` That is by the count; by the model of presence at most ${number(one.highest_expected)} were there, on average over an hour.`,
    one.minutes_over_capacity ? ` It was over capacity for ${hours(one.minutes_over_capacity)}.` : "",
  );
}

async function start() {
  for (const id of ["days", "area", "category"]) $(id).addEventListener("change", load);
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  for (const button of document.querySelectorAll("[data-figure]")) {
    button.addEventListener("click", () => {
      figure = button.dataset.figure;
      for (const each of document.querySelectorAll("[data-figure]")) each.setAttribute("aria-pressed", String(each === button));
      drawWeek();
    });
  }
  $("more").addEventListener("click", async () => {
    const page = await ask(`/api/v1/planning/venues?${query({ limit: 25, cursor: next })}`);
    $("venues").append(...page.items.map(row));
    offer(page.next);
  });
  search($("search"), tellVenue);
  onTheme(drawWeek);
  new ResizeObserver(() => chart?.resize()).observe($("week"));
  await connect();
}

async function connect() {
  try {
    const areas = await ask("/api/v1/areas?limit=500");
    asOf = Date.parse(areas.as_of);
    $("area").append(...areas.items.map(({ area, venues }) => area && el("option", { value: area }, `${area} (${plural(venues, "venue")})`)).filter(Boolean));
    const categories = await ask("/api/v1/categories");
    $("category").append(...categories.items.map((name) => el("option", { value: name }, name)));
  } catch (error) {
    $("banner").hidden = false;
    say($("banner"), error.message);
    setTimeout(connect, 2_000);
    return;
  }
  await load();
}

start();
