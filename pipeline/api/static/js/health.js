// How the pipeline does, each figure with what it is about.

import { $, el, keyed, say } from "./dom.js";
import { duration, number, share } from "./format.js";

export function showHealth(health) {
  const chip = $("health-chip");
  const [level, text] = !health.store_answers ? ["full", "store away"] : health.stale ? ["nearly_full", "stale"] : ["quiet", "well"];
  chip.dataset.level = level;
  say(chip, text);
  const { worker, scans } = health;
  const reasons = Object.entries(worker?.dead_letters ?? {}).map(([reason, count]) => `${number(count)} ${reason}`);
  const items = [
    ["Lag", worker?.lag_scans == null ? "–" : number(worker.lag_scans), worker ? "scans waiting in Kafka" : "no worker in this process"],
    ["Delay", worker?.delay_p50_seconds == null ? "–" : duration(worker.delay_p50_seconds), worker?.delay_p99_seconds == null ? "from gate to stored" : `half; 99 % within ${duration(worker.delay_p99_seconds)}`],
    ["Stored", number(scans?.stored), "scans since the beginning"],
    ["Duplicates", scans?.accepted ? share(scans.duplicates / scans.accepted) : "–", "of valid scans"],
    ["Dead letters", number(scans?.dead_lettered), reasons.join(", ") || "refused records"],
    ["Store", health.store_answers ? "answers" : "away", health.store_answers ? `the present read in ${duration(health.read_seconds)}` : (health.store_problem ?? "")],
  ];
  keyed(
    $("health"),
    items,
    ([name]) => name,
    () => el("div", {}, el("dt"), el("dd", {}, el("span"), el("small"))),
    (box, [name, value, more]) => {
      say(box.children[0], name);
      say(box.children[1].children[0], value);
      say(box.children[1].children[1], more);
    },
  );
}
