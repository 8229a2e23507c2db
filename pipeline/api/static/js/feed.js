// The stream of messages: a snapshot, then deltas; and whether it can be believed.

import { fetchAs } from "./access.js";

const SILENT_MS = 6_000; // the server speaks each second; where reading takes it long, at least every few
const GIVE_UP_MS = 20_000; // a connection that is silent for so long is dead, whatever the browser thinks
const AGAIN_MS = 1_000;
const REFUSED_MS = 2_000;

/** Follow the feed. `onView(view, changed)` gets the whole view and the names of what changed; `onState(state, why)`
 *  gets `live`, `stale` or `lost`. */
export function follow(onView, onState) {
  let view = null;
  let heard = performance.now();
  let connection = null;
  let last = null;

  const judge = () => {
    const silent = performance.now() - heard;
    if (silent > GIVE_UP_MS) connection?.abort();
    if (silent > SILENT_MS || !connection) onState("lost", view);
    else if (view?.health?.stale) onState("stale", view);
    else if (view) onState("live", view);
  };
  const take = ({ kind, data, id }) => {
    heard = performance.now();
    last = id;
    const told = JSON.parse(data);
    if (kind === "snapshot") {
      view = told;
      onView(view, Object.keys(view));
    } else {
      const { cells, ...sections } = told;
      Object.assign(view, sections);
      for (const [at, people, level] of cells ?? []) view.map.now[at] = [people, level];
      onView(view, [...Object.keys(sections), ...(cells ? ["map"] : [])]);
    }
    judge();
  };
  const lost = (pause) => {
    connection = null;
    return pause;
  };
  const listen = async () => {
    const abort = new AbortController();
    // EventSource cannot say who asks.
    const headers = { Accept: "text/event-stream", ...(last ? { "Last-Event-ID": last } : {}) };
    const response = await fetchAs("/api/v1/live", { headers, cache: "no-store", signal: abort.signal });
    if (!response.ok) return lost(REFUSED_MS);
    connection = abort;
    heard = performance.now();
    let told = false;
    for await (const message of messages(response.body)) {
      take(message);
      told = true;
    }
    // Streams end every few minutes, so that who asks is judged anew: nothing is lost then, unless nothing comes after it.
    return told ? AGAIN_MS : lost(AGAIN_MS);
  };
  const goOn = async () => {
    for (;;) {
      const pause = await listen().catch(() => lost(AGAIN_MS));
      judge();
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  };
  goOn();
  setInterval(judge, 1_000);
}

/** The messages of a stream of server-sent events, as they come: their kind, data and id. */
async function* messages(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const seen = Math.max(0, text.length - 1);
    text += value;
    for (let end = text.indexOf("\n\n", seen); end >= 0; end = text.indexOf("\n\n")) {
      const fields = Object.fromEntries(text.slice(0, end).split("\n").map((line) => line.split(/: (.*)/s, 2)));
      text = text.slice(end + 2);
      if (fields.data) yield { kind: fields.event, data: fields.data, id: fields.id };
    }
  }
}
