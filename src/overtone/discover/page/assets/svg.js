// Building blocks: elements, scales, markers, the tooltip and legends. No chart knows another.
"use strict";

const DATA = JSON.parse(document.getElementById("data").textContent);

const h = (tag, attributes = {}, ...children) => build(document.createElement(tag), attributes, children);
const s = (tag, attributes = {}, ...children) => build(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") node.style.cssText = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const linear = (from, to, left, right) => (value) => left + ((value - from) / (to - from || 1)) * (right - left);

function ticks(from, to, about = 5) {
  const rough = (to - from) / about || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((k) => k * power).find((k) => k >= rough * 0.999);
  const found = [];
  for (let tick = Math.ceil(from / step - 1e-9) * step; tick <= to + step * 1e-9; tick += step) found.push(Number(tick.toPrecision(10)));
  return found;
}

function extent(values, include = []) {
  const all = [...values, ...include].filter(isNumber);
  if (!all.length) return [0, 1];
  const low = Math.min(...all), high = Math.max(...all);
  return low === high ? [low - (Math.abs(low) * 0.1 || 0.5), high + (Math.abs(high) * 0.1 || 0.5)] : [low, high];
}

function padded([low, high], share = 0.06, floor = -Infinity) {
  const room = (high - low) * share;
  return [Math.max(low - room, low >= floor ? floor : -Infinity), high + room];
}

// ---- numbers in words
const minus = (text) => text.replace("-", "−");
function number(value, digits = 3) {
  if (!isNumber(value)) return "–";
  if (value === 0) return "0";
  if (Number.isInteger(value)) return minus(value.toLocaleString("en").replaceAll(",", "\u202f"));
  const places = clamp(digits - 1 - Math.floor(Math.log10(Math.abs(value))), 0, 6);
  return minus(String(Number(value.toFixed(places))));
}
function apart(...values) { // as many digits as it takes to tell them apart
  const known = new Set(values).size;
  let written = [];
  for (let digits = 3; digits <= 5 && new Set(written).size < known; digits++) written = values.map((value) => number(value, digits));
  return written;
}
const tickText = (value) => minus(String(Number(value.toPrecision(6))));
const percent = (value) => (isNumber(value) ? minus((100 * value).toFixed(Math.abs(value) >= 0.9995 ? 0 : 1)) + "\u202f%" : "–");
const percentTick = (value) => minus(String(Number((100 * value).toPrecision(4)))) + "\u202f%";
const withInterval = (e, write = number) => (e && isNumber(e.low) && isNumber(e.high) ? `[${write(e.low)}, ${write(e.high)}]` : "");

// ---- colours and markers
const behaviourColour = (name) => { const i = DATA.behaviours.indexOf(name); return i < 0 ? "var(--faint)" : `var(--b${i})`; };
const SHAPES = ["circle", "square", "up", "diamond", "down", "plus", "hexagon", "star"];
const shapeOf = (name) => SHAPES[Math.max(0, DATA.behaviours.indexOf(name)) % SHAPES.length];
const RAMP = ["#3b6fd8", "#6a8fb5", "#a9a46c", "#e0a030", "#e2661a"];
const RAMP_CSS = `linear-gradient(90deg, ${RAMP.join(", ")})`;

function rampColour(share) {
  const at = clamp(share, 0, 1) * (RAMP.length - 1);
  const i = Math.min(RAMP.length - 2, Math.floor(at));
  return `color-mix(in oklab, ${RAMP[i + 1]} ${Math.round((at - i) * 100)}%, ${RAMP[i]})`;
}

function polygon(n, r, turn = 0) {
  const points = Array.from({ length: n }, (_, i) => [r * Math.sin(turn + (2 * Math.PI * i) / n), -r * Math.cos(turn + (2 * Math.PI * i) / n)]);
  return "M" + points.map((p) => p.map((v) => v.toFixed(2)).join(",")).join("L") + "Z";
}

const star = (r) => "M" + Array.from({ length: 10 }, (_, i) => {
  const far = i % 2 ? r * 0.52 : r * 1.25;
  return `${(far * Math.sin((Math.PI * i) / 5)).toFixed(2)},${(-far * Math.cos((Math.PI * i) / 5)).toFixed(2)}`;
}).join("L") + "Z";

function markerPath(shape, r) {
  const w = r * 0.36, o = r * 1.1;
  return {
    circle: `M${r},0A${r},${r} 0 1 1 ${-r},0A${r},${r} 0 1 1 ${r},0Z`,
    square: `M${-r * 0.88},${-r * 0.88}h${r * 1.76}v${r * 1.76}h${-r * 1.76}Z`,
    up: polygon(3, r * 1.25), down: polygon(3, r * 1.25, Math.PI), diamond: polygon(4, r * 1.25), hexagon: polygon(6, r * 1.1), star: star(r),
    plus: `M${-w},${-o}h${2 * w}v${o - w}h${o - w}v${2 * w}h${w - o}v${o - w}h${-2 * w}v${w - o}h${w - o}v${-2 * w}h${o - w}Z`,
    bar: `M${-1.25},${-r * 1.5}h2.5v${r * 3}h-2.5Z`,
  }[shape] || "";
}

const marker = (shape, x, y, r, { color = "currentColor", hollow = false, opacity = 1, width = 1.6 } = {}) =>
  s("path", { d: markerPath(shape, r), transform: `translate(${x.toFixed(2)},${y.toFixed(2)})`, opacity,
    style: hollow ? `fill: var(--card); stroke: ${color}; stroke-width: ${width}` : `fill: ${color}` });

// ---- tooltip
const tip = {
  show(event, ...content) {
    const node = document.getElementById("tip");
    node.replaceChildren(...content.flat().filter(Boolean));
    node.hidden = false;
    const box = node.getBoundingClientRect(), gap = 14;
    const left = event.clientX + gap + box.width > innerWidth - 8 ? event.clientX - gap - box.width : event.clientX + gap;
    const top = event.clientY + gap + box.height > innerHeight - 8 ? event.clientY - gap - box.height : event.clientY + gap;
    node.style.left = `${Math.max(8, left)}px`;
    node.style.top = `${Math.max(8, top)}px`;
  },
  hide() { document.getElementById("tip").hidden = true; },
  rows: (rows) => h("table", {}, rows.map(([color, ...cells]) =>
    h("tr", {}, cells.map((cell, i) => h("td", {}, i === 0 && color ? h("i", { style: `--c: ${color}` }) : null, cell))))),
};

// ---- legend: buttons that hide and show; `hidden` is a Set of names that the chart reads when drawn
function legend(items, hidden, redraw) {
  return h("div", { class: "legend" }, items.map((item) =>
    h("button", { type: "button", "aria-pressed": String(!hidden.has(item.name)),
      onclick: () => { hidden.has(item.name) ? hidden.delete(item.name) : hidden.add(item.name); redraw(); } },
      swatch(item), item.name)));
}

function swatch({ color, dash, band, shape, hollow, line = !shape }) {
  const svg = s("svg", { width: 22, height: 12, viewBox: "0 0 22 12", "aria-hidden": "true" });
  if (band) svg.append(s("rect", { x: 0, y: 1, width: 22, height: 10, rx: 2, style: `fill: ${color}; opacity: .2` }));
  if (line) svg.append(s("line", { x1: 0, x2: 22, y1: 6, y2: 6, "stroke-dasharray": dash, style: `stroke: ${color}; stroke-width: ${band ? 1.5 : 2.2}` }));
  if (shape) svg.append(marker(shape, 11, 6, 4.2, { color, hollow }));
  return svg;
}
