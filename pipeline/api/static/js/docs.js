// The API's reference, made from its OpenAPI document.

import { ask, asks } from "./access.js";
import { $, el } from "./dom.js";

const api = await ask("/api/v1/openapi.json");
const resolve = (schema) => (schema?.$ref ? api.components.schemas[schema.$ref.split("/").pop()] : schema);

function typeOf(schema) {
  if (!schema) return "";
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" or ");
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.enum) return schema.enum.join(", ");
  if (schema.type === "array") return `list of ${typeOf(schema.items)}`;
  return schema.format ? `${schema.type} (${schema.format})` : (schema.type ?? "anything");
}

function table(heads, rows) {
  return el("div", { className: "scroll", tabIndex: 0, attrs: { role: "region", "aria-label": `${heads[0]}s, scrollable` } }, el("table", {}, el("thead", {}, el("tr", {}, ...heads.map((head) => el("th", { attrs: { scope: "col" } }, head)))), el("tbody", {}, ...rows.map(([first, ...rest]) => el("tr", {}, el("th", { attrs: { scope: "row" } }, el("code", {}, first)), ...rest.map((cell) => el("td", {}, cell)))))));
}

function fields(schema) {
  const rows = Object.entries(schema?.properties ?? {}).map(([name, field]) => [name, typeOf(field), field.description ?? resolve(field)?.description ?? ""]);
  return rows.length ? [table(["Field", "Type", "Meaning"], rows)] : [];
}

function route(path, method, operation) {
  const content = (operation.responses["200"] ?? operation.responses["202"])?.content ?? {};
  const schema = resolve(content["application/json"]?.schema);
  const example = schema?.examples?.[0];
  const parameters = (operation.parameters ?? []).map((each) => [each.name, `${typeOf(each.schema)}${each.required ? "" : each.schema?.default == null ? ", optional" : `, default ${each.schema.default === "" ? "none" : each.schema.default}`}`, each.description ?? each.schema?.description ?? ""]);
  const asked = parameters.some(([name]) => name === "X-Purpose");
  const tryIt = asked || path.includes("{") || path.endsWith("/live") ? [] : [el("p", {}, asks(el("a", { href: path }, `Try ${path}`)))];
  return el(
    "details",
    {},
    el("summary", {}, el("code", {}, `${method.toUpperCase()} ${path}`), operation.summary ?? ""),
    el("p", {}, operation.description ?? ""),
    ...(parameters.length ? [table(["Parameter", "Type", "Meaning"], parameters)] : []),
    ...(schema ? [el("p", {}, `Answers ${typeOf(content["application/json"].schema)}.`), ...fields(schema)] : [el("p", {}, `Answers ${Object.keys(content).join(" or ")}.`)]),
    ...(example ? [el("pre", { tabIndex: 0, attrs: { "aria-label": "Example" } }, JSON.stringify(example, null, 2))] : []),
    ...tryIt,
  );
}

const routes = Object.entries(api.paths).flatMap(([path, methods]) => Object.entries(methods).map(([method, operation]) => [path, method, operation]));
const tags = new Map();
for (const each of routes) {
  const tag = each[2].tags?.[0] ?? "others";
  tags.set(tag, [...(tags.get(tag) ?? []), each]);
}
$("waiting").remove();
$("main").append(
  el("section", { className: "panel" }, el("h2", {}, `${api.info.title} ${api.info.version}`), ...api.info.description.trim().split("\n\n").map((text) => el("p", {}, text.replaceAll("`", ""))), el("p", {}, asks(el("a", { href: "/api/v1/openapi.json" }, "The OpenAPI document")))),
  ...[...tags].map(([tag, paths]) => el("section", { className: "panel" }, el("h2", {}, tag), ...paths.map((each) => route(...each)))),
);
