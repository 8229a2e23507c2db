// Small helpers over the document: nothing is ever put in as HTML, so no name can be markup.

export const $ = (id) => document.getElementById(id);

/** An element with properties, attributes (through `attrs`, `data`) and children. */
export function el(tag, { attrs = {}, data = {}, ...properties } = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  for (const [name, value] of Object.entries(attrs)) if (value != null) element.setAttribute(name, value);
  Object.assign(element.dataset, data);
  element.append(...children);
  return element;
}

export function svg(tag, attrs, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attrs)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Set text only where it differs: a screen reader is not to hear what stayed. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Keep one child per item, in order; an item's element lives on, and with it the keyboard's focus. */
export function keyed(parent, items, key, make, update) {
  const known = new Map([...parent.children].filter((child) => child.dataset.key).map((child) => [child.dataset.key, child]));
  const wanted = items.map((item) => {
    const name = String(key(item));
    const element = known.get(name) ?? make(item);
    element.dataset.key = name;
    update(element, item);
    return element;
  });
  for (const child of [...parent.children]) if (!wanted.includes(child)) child.remove();
  wanted.forEach((element, at) => {
    if (parent.children[at] !== element) parent.insertBefore(element, parent.children[at] ?? null);
  });
}

/** The colours in force, light or dark; `onTheme` is called when they change. */
export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** The page's own typefaces, for text on a canvas. */
export const typefaces = () => getComputedStyle(document.body).fontFamily;

export function onTheme(redraw) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
}
