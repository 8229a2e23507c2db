// The stream of messages: a snapshot, then deltas; and whether it can be believed.

const SILENT_MS = 6_000; // the server speaks each second; where reading takes it long, at least every few
const AGAIN_MS = 2_000;

/** Follow the feed. `onView(view, changed)` gets the whole view and the names of what changed; `onState(state, why)`
 *  gets `live`, `stale` or `lost`. */
export function follow(onView, onState) {
  let view = null;
  let heard = performance.now();
  let source = null;

  const judge = () => {
    if (performance.now() - heard > SILENT_MS || source.readyState !== EventSource.OPEN) onState("lost", view);
    else if (view?.health?.stale) onState("stale", view);
    else if (view) onState("live", view);
  };
  const take = (changed) => {
    heard = performance.now();
    onView(view, changed);
    judge();
  };
  const open = () => {
    source = new EventSource("/api/v1/live");
    source.addEventListener("snapshot", (event) => {
      view = JSON.parse(event.data);
      take(Object.keys(view));
    });
    source.addEventListener("delta", (event) => {
      const { cells, ...sections } = JSON.parse(event.data);
      Object.assign(view, sections);
      for (const [at, people, level] of cells ?? []) view.map.now[at] = [people, level];
      take([...Object.keys(sections), ...(cells ? ["map"] : [])]);
    });
    source.addEventListener("error", () => {
      judge();
      // The browser reconnects by itself, with Last-Event-ID, unless the server refused.
      if (source.readyState === EventSource.CLOSED) setTimeout(open, AGAIN_MS);
    });
  };
  open();
  setInterval(judge, 1_000);
}
