// Numbers, times and levels as people read them.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const percent = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const SPACE = "\u202f";

export const LEVEL_NAMES = { unknown: "no capacity known", quiet: "quiet", busy: "busy", nearly_full: "nearly full", full: "full" };

export const number = (value) => (value == null ? "–" : whole.format(value));
export const share = (value) => (value == null ? "–" : `${percent.format(value * 100)}${SPACE}%`);
export const plural = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;

/** A length of time in seconds, in the two largest units that matter. */
export function duration(seconds) {
  if (seconds == null) return "–";
  if (seconds < 10 && seconds % 1) return `${seconds.toFixed(1)}${SPACE}s`;
  if (seconds < 90) return `${Math.round(seconds)}${SPACE}s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 90) return `${minutes}${SPACE}min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours}${SPACE}h ${minutes % 60}${SPACE}min` : `${Math.round(hours / 24)} days`;
}

/** An instant with its zone: the viewer's own, or the one given. */
export function moment(instant, timeZone, seconds = false) {
  const time = { hour: "2-digit", minute: "2-digit", ...(seconds ? { second: "2-digit" } : {}), hourCycle: "h23" };
  return new Intl.DateTimeFormat("en-GB", { weekday: "short", day: "numeric", month: "short", year: "numeric", ...time, timeZone, timeZoneName: "short" }).format(new Date(instant));
}

export function clock(instant, timeZone) {
  return new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", hourCycle: "h23", timeZone }).format(new Date(instant));
}

export function dayName(instant, timeZone) {
  return new Intl.DateTimeFormat("en-GB", { weekday: "long", day: "numeric", month: "short", timeZone }).format(new Date(instant));
}

const rangeOf = ({ low, high }) => (low === high ? number(low) : `${number(low)}–${number(high)}`);

/** "140"; below 20 persons the range: a single number would feign precision. */
export const expectedNumber = (of) => (of.expected < 20 ? rangeOf(of) : number(of.expected));

/** "expected 140 (118–162) · 31 % check out" */
export function estimate(of) {
  const text = `expected ${expectedNumber(of)}${of.expected < 20 ? "" : ` (${rangeOf(of)})`}`;
  return of.check_out_share == null ? text : `${text} · ${share(of.check_out_share)} check out`;
}

/** "counted 212 · expected 140 (118–162) · 31 % check out" */
export function presence(venue) {
  const counted = `counted ${number(venue.occupancy)}`;
  return venue.estimate ? `${counted} · ${estimate(venue.estimate)}` : counted;
}
