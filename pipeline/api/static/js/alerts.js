// Crowding alerts: what lasts first, then what has cleared.

import { $, el, keyed, say } from "./dom.js";
import { clock, duration, number, share } from "./format.js";

export function showAlerts(alerts, figures) {
  const active = alerts.items.filter((alert) => !alert.cleared_at);
  const cleared = alerts.items.filter((alert) => alert.cleared_at);
  say($("alerts-count"), alerts.items.length ? `${number(active.length)} raised, ${number(cleared.length)} cleared` : "");
  const items = [...active, ...cleared];
  if (!items.length) {
    const text = alerts.available ? "No venue is crowded." : "This store has no crowding alerts.";
    keyed($("alerts"), [text], (each) => each, () => el("li", { className: "empty" }), (row) => say(row, text));
    $("alerts").firstElementChild.style.display = "block";
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
      say(detail, ` peak ${number(alert.peak)} of ${number(alert.capacity)} (${share(alert.peak / alert.capacity)})`);
      const until = alert.cleared_at ?? figures?.as_of;
      say(when, `${clock(alert.raised_at)} · ${until ? duration((new Date(until) - new Date(alert.raised_at)) / 1000) : ""}`);
    },
  );
}
