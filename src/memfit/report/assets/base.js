"use strict";
// Parts that a page is built of: figures as text, elements with text nodes only, light and dark. Computes nothing.
const data = JSON.parse(document.getElementById("data").textContent);
const page = document.getElementById("page");
const root = document.documentElement;
const redraws = [];

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];
function bytes(n) {
  if (n === null || n === undefined) return "–";
  let v = Math.abs(n), u = 0;
  while (v >= 1024 && u < 4) { v /= 1024; u++; }
  const text = u ? v.toFixed(v < 10 ? 2 : v < 100 ? 1 : 0) : String(Math.trunc(v));
  return (n < 0 ? "−" : "") + text + " " + UNITS[u];
}
function seconds(s) {
  if (s === null || s === undefined) return "–";
  if (s === 0) return "0 s";
  if (s < 1e-3) return (s * 1e6).toFixed(0) + " µs";
  if (s < 1) return Number((s * 1e3).toPrecision(3)) + " ms";
  return s < 60 ? Number(s.toPrecision(3)) + " s" : Math.floor(s / 60) + " min " + Math.floor(s % 60) + " s";
}
function number(n) { return Number(n).toLocaleString("en"); }
function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name === "class") node.className = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") Object.assign(node.style, value);
    else if (value !== null && value !== undefined) node.setAttribute(name, value);
  }
  for (const child of children.flat()) if (child !== null && child !== undefined) node.append(child);
  return node;
}
const dark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
const variable = (name) => getComputedStyle(root).getPropertyValue(name).trim();
function redraw() { for (const draw of redraws) draw(); }
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

function head(facts) {
  const theme = el("button", { type: "button", onclick: () => { root.dataset.theme = dark() ? "light" : "dark"; redraw(); } }, "Light / dark");
  page.replaceChildren(el("header", {},
    el("div", {}, el("div", { class: "soft path" }, "memfit " + data.verb + " · " + facts.join(" · ")), el("h1", {}, data.headline)), theme));
}
function cards(items) {
  page.append(el("div", { class: "cards" }, items.map(([name, value, detail, tone]) =>
    el("div", { class: "card" }, el("small", {}, name), el("b", { class: tone || "" }, value), el("small", {}, detail || " ")))));
}
function tableOf(headers, rows) {
  return el("div", { class: "wide" }, el("table", {},
    el("thead", {}, el("tr", {}, headers.map(([name, kind]) => el("th", { class: kind || "" }, name)))),
    el("tbody", {}, rows.map((row) => el("tr", {}, row.map((cell, i) => el("td", { class: headers[i][1] || "" }, cell)))))));
}
