// One venue's day against the same weekday before, minute by minute.

import uPlot from "../vendor/uplot.js";
import { ask } from "./access.js";
import { $, colour, el, onTheme, say, typefaces } from "./dom.js";
import { LEVEL_NAMES, clock, dayName, number, presence, share } from "./format.js";

const DAY = 86_400;
const STEP = 300; // seconds of one drawn point
const AGAIN_MS = 5_000;

export class VenueDay {
  venueId = null;
  #chart = null; #drawn = null; #asked = 0; #loading = false; #asOf = null;

  constructor() {
    onTheme(() => this.#draw());
    new ResizeObserver(() => this.#chart?.setSize(this.#size())).observe($("day-chart"));
  }

  show(venueId) {
    this.venueId = venueId;
    this.#asked = 0;
    this.#load();
  }

  /** The present has moved on. */
  refresh(asOf) {
    if (this.venueId && asOf !== this.#asOf && performance.now() - this.#asked > AGAIN_MS) this.#load();
  }

  async #load() {
    if (this.#loading) return;
    this.#loading = true;
    this.#asked = performance.now();
    const venueId = this.venueId;
    try {
      const id = encodeURIComponent(venueId);
      const venue = await ask(`/api/v1/venues/${id}/now`);
      const zone = venue.timezone ?? "UTC";
      const now = Date.parse(venue.as_of) / 1000;
      const midnight = startOfDay(now, zone);
      const past = (start, end) => ask(`/api/v1/venues/${id}/history?since=${iso(start)}&until=${iso(end)}&limit=2000`);
      const today = await past(midnight, now + 60);
      let back = 7, before = await past(midnight - 7 * DAY, midnight - 6 * DAY);
      if (!before.items.length) { back = 1; before = await past(midnight - DAY, midnight); }
      if (venueId !== this.venueId) return;
      this.#asOf = venue.as_of;
      this.#drawn = { venue, zone, midnight, now, back, today, before: before.items.length ? before : null };
      this.#draw();
    } catch (error) {
      say($("day-said"), error.message);
    } finally {
      this.#loading = false;
      if (venueId !== this.venueId) this.#load();
    }
  }

  #size() {
    const box = $("day-chart").getBoundingClientRect();
    return { width: Math.max(200, Math.floor(box.width)), height: Math.max(210, Math.floor(Math.min(box.height, 420))) };
  }

  #draw() {
    if (!this.#drawn) return;
    const { venue, zone, midnight, now, back, today, before } = this.#drawn;
    const xs = Array.from({ length: DAY / STEP + 1 }, (_, at) => at * STEP);
    const counted = filled(today, midnight, xs, now, "occupancy");
    const expected = today.items.some((point) => point.estimate) ? filled(today, midnight, xs, now, "expected") : null;
    const earlier = before ? filled(before, midnight - back * DAY, xs, Infinity, "occupancy") : null;
    const series = [
      {},
      { label: "counted", stroke: colour("accent"), fill: `${colour("accent")}1c`, width: 2, points: { show: false } },
      ...(earlier ? [{ label: "before", stroke: colour("before"), width: 1.5, dash: [5, 5], points: { show: false } }] : []),
      ...(expected ? [{ label: "expected", stroke: colour("expected"), width: 2, points: { show: false } }] : []),
      ...(venue.capacity ? [{ label: "capacity", stroke: colour("full"), width: 1.2, dash: [2, 4], points: { show: false } }] : []),
    ];
    const data = [xs, counted, ...(earlier ? [earlier] : []), ...(expected ? [expected] : []), ...(venue.capacity ? [xs.map(() => venue.capacity)] : [])];
    const highest = Math.max(10, ...data.slice(1).filter((_, at) => series[at + 1].label !== "capacity").flat().filter(Number.isFinite));
    const axis = { stroke: colour("soft"), grid: { stroke: colour("hair"), width: 1 }, ticks: { show: false }, font: `12px ${typefaces()}` };
    this.#chart?.destroy();
    this.#chart = new uPlot(
      {
        ...this.#size(), series, legend: { show: false }, cursor: { y: false, points: { size: 6 } },
        // A capacity far above the day would press it flat.
        scales: { x: { time: false, range: [0, DAY] }, y: { range: [0, highest * 1.12] } },
        axes: [
          { ...axis, splits: () => (this.#size().width < 420 ? [0, 6, 12, 18, 24] : [0, 4, 8, 12, 16, 20, 24]).map((hour) => hour * 3600), values: (_, splits) => splits.map((value) => `${String(value / 3600).padStart(2, "0")}:00`) },
          { ...axis, size: 56, values: (_, splits) => splits.map(number) },
        ],
      },
      data,
      $("day-chart"),
    );
    this.#tell(counted, earlier);
  }

  #tell(counted, earlier) {
    const { venue, zone, midnight, now, back } = this.#drawn;
    say($("day-name"), venue.name);
    const byCount = venue.ratio == null ? LEVEL_NAMES[venue.level] : `counted: ${LEVEL_NAMES[venue.level]} · ${share(venue.ratio)}`;
    const byEstimate = venue.estimate && venue.ratio != null ? [el("span", { className: "chip", data: { line: "expected" } }, `expected: ${share(venue.estimate.expected / venue.capacity)}`)] : [];
    $("day-level").replaceChildren(el("span", { className: "chip", data: { level: venue.level } }, byCount), " ", ...byEstimate);
    const at = Math.floor((now - midnight) / STEP);
    const then = earlier?.[at];
    const when = back === 7 ? "the same weekday before" : "the day before";
    const compared = then == null ? "" : ` · ${number(then)} at this time on ${when}`;
    say($("day-said"), `${presence(venue)}${venue.capacity ? ` · capacity ${number(venue.capacity)}` : ""}${compared}`);
    const most = Math.max(0, ...counted.filter(Number.isFinite));
    $("day-chart").setAttribute("role", "img");
    $("day-chart").setAttribute("aria-label", `${venue.name} on ${dayName(midnight * 1000, zone)}: ${number(venue.occupancy)} counted at ${clock(now * 1000, zone)}, at most ${number(most)} today${compared}.`);
    const entry = (line, text) => el("span", {}, el("i", { className: "dash", data: { line } }), text);
    $("day-legend").replaceChildren(
      entry("now", `counted, ${dayName(midnight * 1000, zone)}`),
      ...(earlier ? [entry("before", dayName((midnight - back * DAY) * 1000, zone))] : [el("span", {}, "nothing stored of the weekday before")]),
      ...(this.#chart.series.some((each) => each.label === "expected") ? [entry("expected", "expected")] : []),
      ...(venue.capacity ? [entry("capacity", `capacity ${number(venue.capacity)}`)] : []),
      el("span", {}, `local time, ${zone}`),
    );
    $("day-legend").hidden = false;
  }
}

const iso = (seconds) => encodeURIComponent(new Date(seconds * 1000).toISOString());

/** The start of the local day that an instant (seconds) is in. */
function startOfDay(instant, timeZone) {
  const parts = Object.fromEntries(new Intl.DateTimeFormat("en-GB", { timeZone, hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" }).formatToParts(new Date(instant * 1000)).map((part) => [part.type, Number(part.value)]));
  return Math.floor(instant) - (parts.hour * 3600 + parts.minute * 60 + parts.second);
}

/** A history's steps on a grid: what held last, up to `end`; null after it. */
function filled(history, start, xs, end, figure) {
  let value = figure === "occupancy" ? history.before : null;
  let at = 0;
  return xs.map((x) => {
    const moment = start + x;
    if (moment > end) return null;
    while (at < history.items.length && Date.parse(history.items[at].at) / 1000 + 60 <= moment) {
      const point = history.items[at++];
      value = figure === "occupancy" ? point.occupancy : (point.estimate?.expected ?? value);
    }
    return value;
  });
}
