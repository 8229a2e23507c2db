// Crowding alerts: what lasts first, then what has cleared. What is new is said to a screen reader, once and apart from the list,
// whose peaks and times change all the while.

import { $, el, keyed, say } from "./dom.js";
import { clock, duration, number, plural } from "./format.js";

const NAMED = 3;
const JUDGED_BY = {
  counted: "by count",
  expected: "by the expected number",
  high: "by the high end of the estimate",
  probability: "by the probability of being over capacity",
};
let before = null;

export function showAlerts(alerts, asOf) {
  const { items, raised, critical, cleared } = alerts;
  say($("alerts-count"), alerts.available ? `${number(raised)} raised, ${number(critical)} critical · ${number(cleared)} cleared in 24 h` : "");
  say($("alerts-basis"), alerts.available ? ` ${JUDGED_BY[alerts.basis]}` : "");
  announce(items);
  if (!items.length) {
    const text = alerts.available ? "No venue is crowded." : "This store has no crowding alerts.";
    keyed($("alerts"), [text], (each) => each, () => el("li", { className: "empty" }), (row) => say(row, text));
    return;
  }
  keyed(
    $("alerts"),
    items,
    (alert) => alert.alert_id,
    () => el("li", {}, el("span", { className: "chip" }), el("span", {}, el("span", { className: "name" }), el("small")), el("span", { className: "when" })),
    (row, alert) => {
      const [chip, [name, detail], when] = [row.children[0], row.children[1].children, row.children[2]];
      row.className = alert.cleared_at ? "cleared" : "";
      chip.dataset.level = alert.cleared_at ? "unknown" : alert.level === "critical" ? "full" : "nearly_full";
      say(chip, alert.cleared_at ? "cleared" : alert.level);
      say(name, alert.name);
      say(detail, ` peak ${number(alert.peak)} of ${number(alert.capacity)}`);
      const until = alert.cleared_at ?? asOf;
      const lasted = until ? duration(Math.max(0, Math.round((new Date(until) - new Date(alert.raised_at)) / 1000))) : "";
      say(when, `${clock(alert.raised_at)} · ${alert.cleared_at ? "" : "for "}${lasted}`);
    },
  );
}

/** Say what was raised and what was cleared since the last time. */
function announce(items) {
  const now = new Map(items.map((alert) => [alert.alert_id, Boolean(alert.cleared_at)]));
  if (before) {
    const news = [];
    const tell = (what, found) => {
      if (!found.length) return;
      const names = found.slice(0, NAMED).map((alert) => (alert.cleared_at ? alert.name : `${alert.name}, ${alert.level}`));
      const more = found.length > NAMED ? ` and ${number(found.length - NAMED)} more` : "";
      news.push(`${plural(found.length, "crowding alert")} ${what}: ${names.join("; ")}${more}.`);
    };
    tell("raised", items.filter((alert) => !alert.cleared_at && !before.has(alert.alert_id)));
    tell("cleared", items.filter((alert) => alert.cleared_at && before.get(alert.alert_id) === false));
    if (news.length) say($("alerts-news"), news.join(" "));
    for (const [id, cleared] of before) if (!now.has(id)) now.set(id, cleared);
  }
  before = now;
}
