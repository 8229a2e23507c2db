// Where people are: circles over an outline, drawn on a canvas. No tiles, no server but ours.

import { colour, el, onTheme, $ } from "./dom.js";
import { LEVEL_NAMES, number, plural } from "./format.js";

const WIDEST = 46; // degrees
const NARROWEST = 0.02;
const MARGIN = 0.12;
const INK = 0.2; // the share of the map that circles may cover when all are in sight
const LARGEST = 0.62; // pixels of radius by the root of people, however near one looks

export class Map {
  #canvas; #tip; #outline = null; #cells = []; #levels = []; #view = null; #choose; #fitted = false; #fittedSpan = 1; #people = 0; #scale = LARGEST; #hover = -1; #frame = 0;

  constructor(box, choose) {
    this.#choose = choose;
    this.#canvas = el("canvas", { tabIndex: 0, attrs: { role: "img", "aria-label": "Map of people at venues" } });
    this.#tip = el("div", { className: "tip", hidden: true });
    const tool = (text, label, act) => el("button", { type: "button", className: "round", onclick: act, attrs: { "aria-label": label } }, text);
    box.append(
      this.#canvas,
      el("div", { className: "tools" }, tool("+", "Zoom in", () => this.#zoom(0.6)), tool("−", "Zoom out", () => this.#zoom(1 / 0.6)), tool("Venues", "Show where the venues are", () => this.#fit()), tool("Indonesia", "Show all of Indonesia", () => this.#all())),
      this.#tip,
    );
    $("legend").append(...Object.entries(LEVEL_NAMES).reverse().map(([level, name]) => el("span", {}, el("i", { className: "dot", data: { level } }), name)), el("span", {}, "The larger the circle, the more people counted; coloured by how full its venues are together."));
    this.#listen();
    new ResizeObserver(() => this.#soon()).observe(box);
    onTheme(() => this.#soon());
    fetch("/static/vendor/outline.json").then((response) => response.json()).then((outline) => { this.#outline = outline; this.#soon(); });
  }

  /** Show the feed's cells. */
  show({ fixed, now }, levels) {
    this.#levels = levels;
    this.#cells = fixed.map(([lat, lon, venues, id, name], at) => ({ lat, lon, venues, id, name, people: now[at][0], level: now[at][1] }));
    if (!this.#fitted && this.#cells.length) this.#fit();
    const people = this.#people = this.#cells.reduce((sum, cell) => sum + cell.people, 0);
    const full = this.#cells.filter((cell) => levels[cell.level] === "full").length;
    this.#canvas.setAttribute("aria-label", `Map: ${plural(people, "person", "people")} counted in ${plural(this.#cells.length, "place")}, ${number(full)} of them full. The table of areas says the same in text.`);
    this.#soon();
  }

  #fit() {
    if (!this.#cells.length) return;
    const lons = this.#cells.map((cell) => cell.lon), lats = this.#cells.map((cell) => cell.lat);
    const [west, east, south, north] = [Math.min(...lons), Math.max(...lons), Math.min(...lats), Math.max(...lats)];
    const { width, height } = this.#canvas.getBoundingClientRect();
    const span = Math.max(east - west, ((north - south) * width) / Math.max(1, height), 0.05) * (1 + 2 * MARGIN);
    this.#view = { lon: (west + east) / 2, lat: (south + north) / 2, span };
    this.#fittedSpan = span;
    this.#fitted = width > 0;
    this.#soon();
  }

  #all() { this.#view = { lon: 118, lat: -2.3, span: 47 }; this.#soon(); }

  #zoom(factor, x = 0.5, y = 0.5) {
    if (!this.#view) return;
    const { width, height } = this.#canvas.getBoundingClientRect();
    const span = Math.min(WIDEST + 2, Math.max(NARROWEST, this.#view.span * factor));
    const moved = this.#view.span - span;
    this.#view = { lon: this.#view.lon + moved * (x - 0.5), lat: this.#view.lat - (moved * (y - 0.5) * height) / width, span };
    this.#soon();
  }

  #pan(x, y) {
    if (!this.#view) return;
    this.#view = { ...this.#view, lon: this.#view.lon + x * this.#view.span, lat: this.#view.lat + y * this.#view.span };
    this.#soon();
  }

  #listen() {
    const canvas = this.#canvas;
    let from = null, dragged = false;
    canvas.addEventListener("pointerdown", (event) => { from = event; dragged = false; canvas.setPointerCapture(event.pointerId); });
    canvas.addEventListener("pointermove", (event) => {
      if (from) {
        const { width } = canvas.getBoundingClientRect();
        dragged ||= Math.hypot(event.clientX - from.clientX, event.clientY - from.clientY) > 3;
        this.#pan((from.clientX - event.clientX) / width, (event.clientY - from.clientY) / width);
        from = event;
      } else this.#point(event);
    });
    canvas.addEventListener("pointerup", (event) => {
      from = null;
      if (dragged) return;
      this.#point(event);
      const id = this.#cells[this.#hover]?.id;
      if (id) this.#choose(id);
    });
    canvas.addEventListener("pointerleave", () => { this.#hover = -1; this.#tip.hidden = true; this.#soon(); });
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      const box = canvas.getBoundingClientRect();
      this.#zoom(event.deltaY > 0 ? 1.2 : 1 / 1.2, (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const act = { ArrowLeft: () => this.#pan(-0.15, 0), ArrowRight: () => this.#pan(0.15, 0), ArrowUp: () => this.#pan(0, 0.15), ArrowDown: () => this.#pan(0, -0.15), "+": () => this.#zoom(0.6), "=": () => this.#zoom(0.6), "-": () => this.#zoom(1 / 0.6) }[event.key];
      if (act) { event.preventDefault(); act(); }
    });
  }

  #point(event) {
    const box = this.#canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    let best = -1, nearest = 14;
    this.#cells.forEach((cell, at) => {
      const [cx, cy] = this.#place(cell.lon, cell.lat, box);
      const away = Math.hypot(cx - x, cy - y) - this.#radius(cell);
      if (away < nearest) { nearest = away; best = at; }
    });
    this.#hover = best;
    const cell = this.#cells[best];
    this.#tip.hidden = !cell;
    if (cell) {
      const name = cell.name ?? plural(cell.venues, "venue");
      this.#tip.textContent = `${name}: ${plural(cell.people, "person", "people")}, ${cell.venues > 1 ? "together " : ""}${LEVEL_NAMES[this.#levels[cell.level]]}`;
      const left = Math.min(x + 14, box.width - this.#tip.offsetWidth - 8);
      this.#tip.style.left = `${Math.max(4, left)}px`;
      this.#tip.style.top = `${Math.max(4, y - 38)}px`;
    }
    this.#soon();
  }

  #place(lon, lat, { width, height }) {
    const scale = width / this.#view.span;
    return [width / 2 + (lon - this.#view.lon) * scale, height / 2 - (lat - this.#view.lat) * scale];
  }

  #radius(cell) { return cell.people ? 1.8 + Math.sqrt(cell.people) * this.#scale : 1.4; }

  /** How large people are drawn: as large as leaves the map to be seen, larger the nearer one looks. */
  #measure({ width, height }) {
    const covered = Math.sqrt((INK * width * height) / (Math.PI * Math.max(1, this.#people)));
    this.#scale = Math.min(LARGEST, covered * Math.max(1, this.#fittedSpan / this.#view.span));
  }

  #soon() {
    cancelAnimationFrame(this.#frame);
    this.#frame = requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    const box = this.#canvas.getBoundingClientRect();
    if (!box.width) return;
    if (!this.#fitted && this.#cells.length) this.#fit();
    if (!this.#view) this.#view = { lon: 118, lat: -2.3, span: 47 };
    this.#measure(box);
    const density = devicePixelRatio || 1;
    this.#canvas.width = box.width * density;
    this.#canvas.height = box.height * density;
    const pen = this.#canvas.getContext("2d");
    pen.scale(density, density);
    if (this.#outline) {
      this.#rings(pen, box, this.#outline.others, colour("other-land"), null);
      this.#rings(pen, box, this.#outline.land, colour("land"), colour("coast"));
    }
    const fills = this.#levels.map((level) => colour(level));
    const order = this.#cells.map((_, at) => at).sort((a, b) => this.#cells[b].people - this.#cells[a].people);
    for (const at of order) {
      const cell = this.#cells[at];
      const [x, y] = this.#place(cell.lon, cell.lat, box);
      if (x < -40 || y < -40 || x > box.width + 40 || y > box.height + 40) continue;
      pen.beginPath();
      pen.arc(x, y, this.#radius(cell), 0, 2 * Math.PI);
      pen.fillStyle = fills[cell.level];
      pen.globalAlpha = cell.people ? 0.72 : 0.3;
      pen.fill();
      pen.globalAlpha = 1;
      if (cell.people) {
        pen.strokeStyle = at === this.#hover ? colour("ink") : colour("panel");
        pen.lineWidth = at === this.#hover ? 2 : 0.8;
        pen.stroke();
      }
    }
  }

  #rings(pen, box, rings, fill, stroke) {
    const unit = this.#outline.unit;
    pen.beginPath();
    for (const ring of rings) {
      for (let at = 0; at < ring.length; at += 2) {
        const [x, y] = this.#place(ring[at] * unit, ring[at + 1] * unit, box);
        if (at) pen.lineTo(x, y); else pen.moveTo(x, y);
      }
      pen.closePath();
    }
    pen.fillStyle = fill;
    pen.fill();
    if (stroke) { pen.strokeStyle = stroke; pen.lineWidth = 1; pen.stroke(); }
  }
}
