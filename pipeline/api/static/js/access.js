// Who asks: a token, where the pipeline wants one. It stays in this tab, and is sent to nobody but the pipeline.

import { $, el } from "./dom.js";

const KEY = "checkins.token";
let asking = null;

export const token = () => sessionStorage.getItem(KEY);

/** `fetch` an address of ours as whoever gave the token. Where there is none, or it does not hold, ask for one first. */
export async function fetchAs(path, options = {}) {
  for (;;) {
    const given = token();
    const headers = { ...options.headers, ...(given ? { Authorization: `Bearer ${given}` } : {}) };
    const response = await fetch(path, { ...options, headers });
    if (response.status !== 401) return response;
    // Of many refused at once one asks; whoever comes later has the new one already.
    if (token() === given) await (asking ??= askForToken(given !== null).finally(() => { asking = null; }));
  }
}

/** The JSON at an address of ours; an Error says what the server said. */
export async function ask(path) {
  const response = await fetchAs(path, { headers: { Accept: "application/json" } });
  const body = await response.json();
  if (!response.ok) throw new Error(body.what ? `${body.what}: ${body.way_out}` : response.statusText);
  return body;
}

/** Have a link to the API followed as whoever gave the token: a browser's own request would come without it. */
export function asks(link) {
  link.addEventListener("click", async (event) => {
    if (!token()) return;
    event.preventDefault();
    const response = await fetchAs(link.href);
    const address = URL.createObjectURL(await response.blob());
    if (!link.hasAttribute("download")) return void window.open(address);
    const named = /filename="?([^";]+)/.exec(response.headers.get("Content-Disposition") ?? "");
    el("a", { href: address, download: named?.[1] ?? "download" }).click();
    return URL.revokeObjectURL(address);
  });
  return link;
}

function askForToken(wrong) {
  const field = el("input", { type: "password", id: "token", required: true, autocomplete: "off", spellcheck: false, attrs: { "aria-describedby": "token-hint" } });
  const hint = wrong ? "That token does not hold: it may have expired." : "It is kept in this tab until you close it, and sent to this pipeline only.";
  const form = el(
    "form",
    {},
    el("h2", { id: "token-title" }, "A token, please"),
    el("label", { htmlFor: "token" }, "This pipeline tells its figures to those who hold a token."),
    field,
    el("p", { className: "soft", id: "token-hint", attrs: { role: wrong ? "alert" : null } }, hint),
    el("button", { type: "submit", className: "button" }, "Continue"),
  );
  const dialog = el("dialog", { className: "token", attrs: { "aria-labelledby": "token-title" } }, form);
  document.body.append(dialog);
  dialog.addEventListener("cancel", (event) => event.preventDefault());
  dialog.showModal();
  return new Promise((resolve) => {
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      sessionStorage.setItem(KEY, field.value.trim());
      dialog.remove();
      offerToForget();
      resolve();
    });
  });
}

function offerToForget() {
  if (!token() || $("forget")) return;
  const forget = el("button", { type: "button", id: "forget", title: "Forget the token in this tab" }, "Sign out");
  forget.addEventListener("click", () => {
    sessionStorage.removeItem(KEY);
    location.reload();
  });
  document.querySelector("nav").append(forget);
}

offerToForget();
