// Three kinds of chart: lines over a numeric axis, dots in rows, and a histogram; each draws itself into a host of any width.

// spec: {xs, xTicks?, xTickText?, xLabel?, yTickText?, yTip?, yInclude?, yBase?, floor?, zero?, height, title?, compact?, series}
// series: {name, color, y, low?, high?, dash?, band?, shape?, hollow?, width?}; with band the interval is the message, without it a shade
function lineChart(host, spec) {
  const hidden = (host.hiddenNames ??= new Set(spec.hidden || []));
  const redraw = () => lineChart(host, spec);
  const shown = spec.series.filter((one) => !hidden.has(one.name));
  const width = Math.max(120, host.clientWidth), { height } = spec;
  const box = { left: spec.compact ? 46 : 52, right: width - (spec.compact ? 8 : 14), top: 10, bottom: height - (spec.xLabel ? 38 : 22) };
  const [x0, x1] = extent(spec.xs);
  const inset = spec.xs.length > 1 ? 0 : 0.5;
  const x = linear(x0 - inset, x1 + inset, box.left + 8, box.right - 8);
  const counted = shown.length ? shown : spec.series;
  const [y0, y1] = padded(extent(counted.flatMap((one) => [...one.y, ...(one.low || []), ...(one.high || [])]), spec.yInclude), 0.06, spec.floor);
  const y = linear(y0, y1, box.bottom, box.top);
  const svg = s("svg", { height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": spec.aria || spec.title || "chart" });
  drawAxes(svg, spec, box, x, y, [y0, y1], width);
  for (const one of shown) svg.append(...lineMarks(one, spec.xs, x, y, spec.compact));
  hoverLines(svg, spec, shown, box, x);
  host.replaceChildren(
    ...(spec.title ? [h("h4", {}, spec.title, spec.note ? h("small", {}, spec.note) : "")] : []),
    ...(spec.legend === false ? [] : [legend([...spec.series].reverse().map((one) => ({ ...one, line: true, shape: one.band ? null : one.shape ?? "circle" })), hidden, redraw)]), svg);
}

function drawAxes(svg, spec, box, x, y, [y0, y1], width) {
  const write = spec.yTickText || tickText;
  for (const tick of ticks(y0, y1, spec.compact ? 3 : 5))
    svg.append(s("line", { class: "grid", x1: box.left, x2: box.right, y1: y(tick), y2: y(tick) }),
      s("text", { x: box.left - 7, y: y(tick) + 4, "text-anchor": "end" }, write(tick)));
  if (isNumber(spec.yBase)) svg.append(s("line", { class: "axis", x1: box.left, x2: box.right, y1: y(spec.yBase), y2: y(spec.yBase) }));
  else if (y0 < 0 && y1 > 0) svg.append(s("line", { class: "axis", x1: box.left, x2: box.right, y1: y(0), y2: y(0) }));
  if (isNumber(spec.zero)) svg.append(s("line", { class: "zero", x1: x(spec.zero), x2: x(spec.zero), y1: box.top, y2: box.bottom }));
  const wanted = spec.xTicks || ticks(...extent(spec.xs), clamp(Math.floor((box.right - box.left) / 60), 2, 8));
  for (const tick of wanted)
    svg.append(s("text", { x: x(tick), y: box.bottom + 17, "text-anchor": "middle" }, (spec.xTickText || tickText)(tick)));
  if (spec.xLabel) svg.append(s("text", { x: (box.left + box.right) / 2, y: box.bottom + 34, "text-anchor": "middle" }, spec.xLabel));
}

function lineMarks(one, xs, x, y, compact) {
  const points = xs.map((value, i) => ({ x: x(value), y: one.y[i], low: one.low?.[i], high: one.high?.[i] }));
  const marks = [];
  const spread = points.filter((p) => isNumber(p.low) && isNumber(p.high));
  if (spread.length > 1) {
    const edge = [...spread.map((p) => `${p.x.toFixed(1)},${y(p.high).toFixed(1)}`), ...spread.reverse().map((p) => `${p.x.toFixed(1)},${y(p.low).toFixed(1)}`)];
    marks.push(s("path", { d: `M${edge.join("L")}Z`, style: `fill: ${one.color}; opacity: ${one.band ? 0.2 : 0.14}` }));
  }
  if (spread.length === 1) // one layer, one strength: a band would have no width
    marks.push(s("line", { x1: spread[0].x, x2: spread[0].x, y1: y(spread[0].low), y2: y(spread[0].high), opacity: 0.25, style: `stroke: ${one.color}; stroke-width: ${one.band ? 28 : 6}` }));
  const known = points.filter((p) => isNumber(p.y));
  if (known.length > 1)
    marks.push(s("path", { d: "M" + known.map((p) => `${p.x.toFixed(1)},${y(p.y).toFixed(1)}`).join("L"), fill: "none", "stroke-dasharray": one.dash, "stroke-linejoin": "round",
      style: `stroke: ${one.color}; stroke-width: ${one.width || (one.band ? 1.3 : 2)}` }));
  if (!one.band && one.shape !== null)
    marks.push(...known.map((p) => marker(one.shape || "circle", p.x, y(p.y), compact ? 2.4 : 3.4, { color: one.color, hollow: one.hollow })));
  return marks;
}

function hoverLines(svg, spec, shown, box, x) {
  const guide = s("line", { class: "guide", y1: box.top, y2: box.bottom, visibility: "hidden" });
  const write = spec.yTip || number;
  const move = (event) => {
    const at = (event.clientX - svg.getBoundingClientRect().left) * (svg.viewBox.baseVal.width / svg.getBoundingClientRect().width);
    const i = spec.xs.reduce((best, value, k) => (Math.abs(x(value) - at) < Math.abs(x(spec.xs[best]) - at) ? k : best), 0);
    build(guide, { x1: x(spec.xs[i]), x2: x(spec.xs[i]), visibility: "visible" }, []);
    const rows = [...shown].reverse().filter((one) => isNumber(one.y[i])).map((one) =>
      [one.color, one.name, write(one.y[i]), withInterval({ low: one.low?.[i], high: one.high?.[i] }, write)]);
    tip.show(event, h("b", {}, spec.xTip ? spec.xTip(spec.xs[i]) : `${spec.xLabel || ""} ${tickText(spec.xs[i])}`), tip.rows(rows));
  };
  const leave = () => { guide.setAttribute("visibility", "hidden"); tip.hide(); };
  svg.append(guide, s("rect", { class: "hot", x: box.left, y: 0, width: Math.max(0, box.right - box.left), height: box.bottom, onpointermove: move, onpointerleave: leave }));
}

// spec: {rows: [{label, color?, marks: [{name, value, low?, high?, shape, hollow?, color?}], note?}], include?, zero?, xLabel?, xTickText?, xTip?, link?}
function dotChart(host, spec) {
  const hidden = (host.hiddenNames ??= new Set());
  const redraw = () => dotChart(host, spec);
  const width = Math.max(160, host.clientWidth), above = width < 430, step = spec.step || (above ? 44 : 34);
  const room = above ? 8 : Math.min(170, 18 + 7 * Math.max(...spec.rows.map((row) => row.label.length)));
  const left = room, right = width - 14, top = 6, bottom = top + step * spec.rows.length, height = bottom + (spec.xLabel ? 40 : 24);
  const marks = spec.rows.flatMap((row) => row.marks);
  const [x0, x1] = spec.range || padded(extent(marks.flatMap((m) => [m.value, m.low, m.high]), spec.include), 0.04, spec.floor);
  const x = linear(x0, x1, left + 6, right - 6);
  const svg = s("svg", { height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": spec.aria || spec.xLabel || "chart" });
  for (const tick of ticks(x0, x1, clamp(Math.floor((right - left) / 52), 2, 8)))
    svg.append(s("line", { class: "grid", x1: x(tick), x2: x(tick), y1: top, y2: bottom }),
      s("text", { x: x(tick), y: bottom + 17, "text-anchor": "middle" }, (spec.xTickText || tickText)(tick)));
  if (isNumber(spec.zero)) svg.append(s("line", { class: "zero", x1: x(spec.zero), x2: x(spec.zero), y1: top, y2: bottom }));
  if (spec.xLabel) svg.append(s("text", { x: (left + right) / 2, y: bottom + 35, "text-anchor": "middle" }, spec.xLabel));
  spec.rows.forEach((row, i) => svg.append(dotRow(row, i, spec, hidden, { x, left, right, top: top + i * step, step, above })));
  const kinds = [...new Map(marks.map((m) => [m.name, m])).values()];
  host.replaceChildren(...(spec.legend === false ? [] : [legend(kinds.map((m) => ({ ...m, color: m.own ? "var(--ink)" : m.color })), hidden, redraw)]), svg);
}

function dotRow(row, i, spec, hidden, { x, left, right, top, step, above }) {
  const y = above ? top + step - 13 : top + step / 2;
  const shown = row.marks.filter((m) => !hidden.has(m.name) && isNumber(m.value));
  const group = s("g");
  group.append(s("text", { class: "name", x: above ? 8 : left - 12, y: above ? y - 14 : y + 4, "text-anchor": above ? "start" : "end" }, row.label));
  if (spec.link && shown.length > 1)
    group.append(s("line", { x1: x(Math.min(...shown.map((m) => m.value))), x2: x(Math.max(...shown.map((m) => m.value))), y1: y, y2: y, style: "stroke: var(--line); stroke-width: 2" }));
  for (const m of [...shown].reverse()) {
    const color = m.own ? row.color : m.color;
    if (isNumber(m.low) && isNumber(m.high))
      group.append(s("line", { x1: x(m.low), x2: x(m.high), y1: y, y2: y, opacity: m.own ? 0.55 : 0.35, "stroke-linecap": "round", style: `stroke: ${color}; stroke-width: ${m.own ? 5 : 3}` }));
    group.append(marker(m.shape || "circle", x(m.value), y, m.own ? 5.2 : 4.2, { color, hollow: m.hollow }));
  }
  const write = spec.xTip || number;
  const move = (event) => tip.show(event, h("b", {}, row.title || row.label), tip.rows(shown.map((m) => [m.own ? row.color : m.color, m.name, write(m.value), withInterval(m, write)])), row.note || "");
  group.append(s("rect", { class: "hot", x: 0, y: top, width: right, height: step, onpointermove: move, onpointerleave: tip.hide }));
  return group;
}

// spec: {values, marks: [{name, value, color}], xLabel, height, name}
function histogram(host, spec) {
  const width = Math.max(160, host.clientWidth), { height } = spec, left = 8, right = width - 8, top = 46, bottom = height - 40;
  const [x0, x1] = padded(extent([...spec.values, ...spec.marks.map((m) => m.value)]), 0.05);
  const x = linear(x0, x1, left, right), bins = new Map(), size = (x1 - x0) / 60;
  for (const value of spec.values) { const bin = Math.floor((value - x0) / size); bins.set(bin, (bins.get(bin) || 0) + 1); }
  const y = linear(0, Math.max(1, ...bins.values()), bottom, top + 14);
  const svg = s("svg", { height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": spec.xLabel });
  for (const tick of ticks(x0, x1, clamp(Math.floor(width / 80), 2, 8)))
    svg.append(s("line", { class: "grid", x1: x(tick), x2: x(tick), y1: top, y2: bottom }), s("text", { x: x(tick), y: bottom + 17, "text-anchor": "middle" }, tickText(tick)));
  for (const [bin, count] of bins) {
    const from = x(x0 + bin * size), to = x(x0 + (bin + 1) * size);
    const move = (event) => tip.show(event, h("b", {}, spec.name), `${count} between ${number(x0 + bin * size)} and ${number(x0 + (bin + 1) * size)}`);
    svg.append(s("rect", { x: from + 0.5, width: Math.max(1, to - from - 1), y: y(count), height: bottom - y(count), rx: 1, style: "fill: var(--band); opacity: .45", onpointermove: move, onpointerleave: tip.hide }));
  }
  svg.append(s("line", { class: "axis", x1: left, x2: right, y1: bottom, y2: bottom }), s("text", { x: (left + right) / 2, y: bottom + 35, "text-anchor": "middle" }, spec.xLabel));
  spec.marks.forEach((m, i) => flag(svg, m, x, 12 + 16 * i, bottom, [left, right]));
  host.replaceChildren(svg);
}

function flag(svg, mark, x, level, bottom, [left, right]) {
  const at = x(mark.value), end = at > (left + right) / 2;
  svg.append(s("line", { x1: at, x2: at, y1: level - 4, y2: bottom, style: `stroke: ${mark.color}; stroke-width: 2` }),
    s("text", { x: at + (end ? -6 : 6), y: level + 5, "text-anchor": end ? "end" : "start", class: "name" }, `${mark.name} ${mark.text || number(mark.value)}`));
}
