// The figures of the report: each takes its section's plain data and says which chart to draw. Keys are those of README.md.

const FIGURES = {
  finding(host, { index }) {
    const f = DATA.findings[Number(index)], [low, high] = f.interval || [f.measured, f.measured];
    const width = host.clientWidth || 140, height = 26, y = 13, nothing = /auroc/i.test(f.unit) ? 0.5 : /ratio/.test(f.unit) ? 1 : f.unit === "nats" ? null : 0; // the value of no effect; an entropy has none
    const x = linear(...padded(extent([low, high, f.measured, f.control], [nothing]), 0.06), 4, width - 4);
    const svg = s("svg", { height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "measured value and control" });
    svg.append(s("line", { class: "axis", x1: 2, x2: width - 2, y1: y, y2: y, opacity: 0.5 }), ...(nothing === null ? [] : [s("line", { class: "zero", x1: x(nothing), x2: x(nothing), y1: 3, y2: 23 })]));
    if (isNumber(f.control)) svg.append(marker("diamond", x(f.control), y, 4.4, { color: "var(--soft)", hollow: true }));
    svg.append(s("line", { x1: x(low), x2: x(high), y1: y, y2: y, "stroke-linecap": "round", style: "stroke: var(--ink); stroke-width: 4; opacity: .45" }), marker("circle", x(f.measured), y, 4.6, { color: "var(--ink)" }));
    host.replaceChildren(svg);
  },

  atoms(host) { scatter(host, DATA.atoms.points, host.dataset.value || "behaviour"); },

  separability(host) { silhouette(host, DATA.separability, "all labelled atoms", 340); },
  length(host) { silhouette(host, DATA.length.layers, "long against short", 280); },

  auroc(host, { index }) {
    const rows = DATA.auroc.filter((row) => row.split === index);
    const controls = [...new Set(rows.flatMap((row) => Object.keys(row.controls)))];
    const shapes = ["up", "square", "diamond", "down", "star", "plus"];
    dotChart(host, {
      include: [0.5, 1], zero: 0.5, xLabel: "area under the curve", aria: "AUROC of the best latent and of controls",
      rows: rows.map((row) => ({
        label: row.behaviour, color: behaviourColour(row.behaviour), title: `${row.behaviour}: ${row.site} #${row.latent ?? "?"}`,
        note: [row.anchor && `anchor ${row.anchor}`, isNumber(row.n) && `${number(row.n)} steps`].filter(Boolean).join(", "),
        marks: [
          { name: "best single latent", own: true, shape: "circle", color: "var(--ink)", ...row.auroc },
          ...controls.map((name, i) => ({ name, shape: shapes[i % shapes.length], hollow: true, color: "var(--soft)", ...row.controls[name] })),
          ...(isNumber(row.bound) ? [{ name: "best possible forecast", shape: "bar", color: "var(--ink)", value: row.bound }] : []),
        ],
      })),
    });
  },

  dose(host, { index, what }) {
    const curve = DATA.doses[Number(index)];
    const measure = document.querySelector('[data-switch="doses"] [aria-pressed="true"]')?.dataset.value || "rates";
    if (what === "target") doseTarget(host, curve, measure);
    else if (what === "off") doseOthers(host, curve, measure);
    else doseSide(host, curve, what);
  },

  entropy(host) {
    const c = DATA.confidence, [before, after] = apart(c.entropy_before, c.entropy_after);
    histogram(host, { values: c.entropy_random || [], name: "random combinations", height: 230, xLabel: "mean entropy of the next token (nats)",
      marks: [{ name: "optimised", value: c.entropy_after, text: after, color: behaviourColour("confidence") }, { name: "unsteered", value: c.entropy_before, text: before, color: "var(--ink)" }] });
  },
  path(host) {
    const path = DATA.confidence.entropy_path;
    lineChart(host, { xs: path.map((_, i) => (path.length > 1 ? i / (path.length - 1) : 0)), xTickText: percentTick, xTip: (v) => `${percentTick(v)} of the search`, xLabel: "progress of the search", height: 230, legend: false,
      series: [{ name: "entropy (nats)", y: path, color: behaviourColour("confidence"), shape: null, width: 2.4 }] });
  },
  effects(host) {
    // Quantities of unlike units share the picture as multiples of their unsteered value.
    const part = (e, base) => e && { value: e.value / base, low: isNumber(e.low) ? e.low / base : null, high: isNumber(e.high) ? e.high / base : null };
    dotChart(host, { include: [0, 1], zero: 1, floor: 0, xLabel: "multiple of the unsteered value", xTip: (v) => `×${number(v)}`,
      rows: DATA.confidence.effects.filter((row) => row.before?.value).map((row) => ({
        label: row.name, color: behaviourColour("confidence"), note: `unsteered ${number(row.before.value)}, injected ${number(row.after.value)} ${row.unit}`,
        marks: [{ name: "confidence vector", own: true, shape: "circle", color: "var(--ink)", ...part(row.after, row.before.value) },
          ...(row.control ? [{ name: "random combination", shape: "square", hollow: true, color: "var(--soft)", ...part(row.control, row.before.value) }] : [])],
      })) });
  },

  groups(host) {
    const groups = DATA.length.groups, names = [...new Set(groups.flatMap((g) => Object.keys(g.shares)))];
    const order = DATA.behaviours.filter((name) => names.includes(name));
    dotChart(host, { include: [0], floor: 0, link: true, xLabel: "share of steps", xTickText: percentTick, xTip: percent,
      rows: order.map((name) => ({ label: name, color: behaviourColour(name), marks: groups.map((g, i) => ({
        name: `${g.name} (${number(g.n_traces)} traces, ${number(g.tokens)} tokens on average)`, shape: ["circle", "up", "diamond"][i % 3], hollow: i === 0, own: i > 0, color: "var(--soft)", value: g.shares[name] })) })) });
  },

  transfer(host, { index }) {
    const rows = DATA.transfer.filter((row) => row.distribution === index);
    dotChart(host, { include: [0], floor: 0, link: true, xLabel: rows[0]?.unit || "", step: 44,
      rows: rows.map((row) => ({ label: row.behaviour, color: behaviourColour(row.behaviour), note: row.n ? `${number(row.n)} problems` : "", marks: [
        { name: "amplified", shape: "up", own: true, color: "var(--ink)", ...row.amplified }, { name: "suppressed", shape: "down", own: true, color: "var(--ink)", ...row.suppressed },
        { name: "unsteered", shape: "circle", hollow: true, color: "var(--ink)", ...row.unsteered },
        ...(row.control ? [{ name: "random direction", shape: "square", hollow: true, color: "var(--soft)", ...row.control }] : [])] })) });
  },

  shares(host) {
    const facts = DATA.model, reference = facts.behaviours.some((b) => isNumber(b.reference));
    dotChart(host, { include: [0], floor: 0, link: true, step: 30, xLabel: "share of steps", xTickText: percentTick, xTip: percent,
      rows: facts.behaviours.map((b) => ({ label: b.behaviour, color: behaviourColour(b.behaviour), marks: [
        { name: "model", own: true, shape: "circle", color: "var(--ink)", value: b.model },
        ...(reference ? [{ name: facts.reference_name || "reference", shape: "bar", color: "var(--ink)", value: b.reference }] : [])] })) });
  },
};

function silhouette(host, layers, name, height) {
  const rows = [...layers].sort((a, b) => a.layer - b.layer);
  const named = [...new Set(rows.flatMap((row) => Object.keys(row.pairs || {})))];
  // All pairs of seven behaviours are too many for one picture: those of the steered ones stand in it, a table has the rest.
  const wanted = named.length > 4 ? named.filter((name) => name.split(/\s*\/\s*/).every((part) => ["reflection", "backtracking", "alternative"].includes(part))) : named;
  const pairs = named.length < 2 ? [] : wanted.length ? wanted : named.slice(0, 4);
  const dashes = ["6 3", "2 3", "8 3 2 3", "1 4"];
  const tested = rows.some((row) => isNumber(row.null_high));
  lineChart(host, {
    xs: rows.map((row) => row.layer), xTicks: rows.map((row) => row.layer), xLabel: "layer", height, yInclude: [0], title: "silhouette", aria: "silhouette per layer",
    xTip: (layer) => { const row = rows.find((one) => one.layer === layer); return `${row.site}${isNumber(row.p_value) ? `, p = ${number(row.p_value)}` : ""}${row.n_atoms ? `, ${row.n_atoms} atoms` : ""}`; },
    series: [
      ...(tested ? [{ name: "shuffled labels", band: true, color: "var(--band)", dash: "3 3", y: rows.map((row) => row.null_mean), low: rows.map((row) => row.null_low ?? row.null_mean), high: rows.map((row) => row.null_high) }] : []),
      { name, color: "var(--accent)", width: 2.8, y: rows.map((row) => row.silhouette) },
      ...pairs.map((name, i) => ({ name, color: behaviourColour(name.split(/\s*\/\s*/)[0]), dash: dashes[i % 4], width: 1.5, hollow: true, shape: SHAPES[(i + 1) % 8], y: rows.map((row) => row.pairs?.[name]) })),
    ],
  });
}

const STYLES = {
  steered: { width: 3, shape: "circle" }, rival: { dash: "7 4", width: 1.6, hollow: true, shape: "diamond" }, random: { band: true, dash: "3 3" },
  shuffled: { dash: "2 4", width: 1.6, hollow: true, shape: "square" }, bias: { dash: "9 3 2 3", width: 1.6, hollow: true, shape: "up" },
};
const ROLE_ORDER = ["random", "shuffled", "bias", "rival", "steered"];

// One line of a dose chart: `pick` takes a point and returns an Estimate.
function doseLine(one, xs, own, pick) {
  const at = new Map(one.points.map((p) => [p.strength, pick(p)]));
  const part = (key) => xs.map((x) => at.get(x)?.[key] ?? null);
  const ours = one.role === "steered" || one.role === "rival";
  return { name: one.name, color: ours ? own : "var(--band)", ...(STYLES[one.role] || STYLES.rival), y: part("value"),
    ...(one.role === "steered" || one.role === "random" ? { low: part("low"), high: part("high") } : {}) };
}

const strengthsOf = (curve) => [...new Set(curve.series.flatMap((one) => one.points.map((p) => p.strength)))].sort((a, b) => a - b);
const ordered = (curve) => [...curve.series].sort((a, b) => ROLE_ORDER.indexOf(a.role) - ROLE_ORDER.indexOf(b.role));
const strengthTick = (value) => (value > 0 ? "+" : "") + tickText(value);

function doseSpec(curve, extra) {
  const xs = strengthsOf(curve);
  const added = curve.edit === "add";
  const xTip = (v) => (added ? `strength ${strengthTick(v)} ${curve.unit}` : `${tickText(v)}: ${curve.unit}`);
  return { xs, xTicks: xs.length <= 9 ? xs : undefined, xTickText: added ? strengthTick : tickText, zero: 0, xTip, xLabel: added ? `strength (${curve.unit})` : curve.unit, ...extra };
}

function doseTarget(host, curve, measure) {
  const rate = measure === "rates", xs = strengthsOf(curve);
  lineChart(host, doseSpec(curve, { height: 290, title: curve.behaviour, note: rate ? "share of steps" : "steps per response", yTickText: rate ? percentTick : tickText, yTip: rate ? percent : number,
    yInclude: [0], floor: 0,
    series: ordered(curve).map((one) => doseLine(one, xs, behaviourColour(curve.behaviour), (p) => p[measure]?.[curve.behaviour])) }));
}

function doseOthers(host, curve, measure) {
  const xs = strengthsOf(curve), steered = curve.series.find((one) => one.role === "steered") || curve.series[0];
  const unsteered = steered.points.find((p) => p.strength === 0)?.[measure] || {};
  // Too rare to divide by: a handful of steps would rule the axis.
  const rare = (name) => (steered.points.find((p) => p.strength === 0)?.rates?.[name]?.value ?? 0) < 0.01;
  const names = DATA.behaviours.filter((name) => name !== curve.behaviour && name !== "unknown" && unsteered[name]?.value && !rare(name));
  if (!names.length) return host.replaceChildren();
  const line = (name) => doseLine(steered, xs, behaviourColour(name), (p) => p[measure]?.[name] && { value: p[measure][name].value / unsteered[name].value });
  lineChart(host, doseSpec(curve, { height: 290, title: "other behaviours", note: "multiple of unsteered", yTip: (v) => `×${number(v)}`, yTickText: (v) => `×${tickText(v)}`, yInclude: [0.5, 1.5], floor: 0, yBase: 1,
    series: names.reverse().map((name) => ({ ...line(name), name, width: 1.8, shape: shapeOf(name), low: null, high: null })) }));
}

const SIDE = {
  accuracy: ["accuracy", percentTick, percent], tokens: ["tokens per response", tickText, number], validity: ["right arithmetic", percentTick, percent], kl: ["KL to unsteered", tickText, number],
};

function doseSide(host, curve, what) {
  const [title, yTickText, yTip] = SIDE[what], xs = strengthsOf(curve);
  const series = ordered(curve).filter((one) => ["steered", "random"].includes(one.role)).map((one) => doseLine(one, xs, behaviourColour(curve.behaviour), (p) => p[what])).filter((one) => one.y.some(isNumber));
  if (!series.length) return host.replaceChildren();
  lineChart(host, doseSpec(curve, { height: 170, title, note: what === "kl" ? "nats" : "", xLabel: "", yTickText, yTip, compact: true, legend: false, xTicks: [xs[0], 0, xs.at(-1)], series, floor: what === "kl" || what === "tokens" ? 0 : undefined }));
}

// ---- the map
function scatter(host, points, by) {
  const hidden = (host.hiddenNames ??= new Set());
  const redraw = () => scatter(host, points, by);
  const width = host.clientWidth - (matchMedia("(min-width: 900px)").matches ? 214 : 0), height = clamp(Math.round(width * 0.66), 320, 620), pad = 16;
  const scale = Math.min((width - 2 * pad) / span(points, "x"), (height - 2 * pad) / span(points, "y"));
  const place = (key, size) => { const [low, high] = extent(points.map((p) => p[key])); return (value) => size / 2 + (value - (low + high) / 2) * scale; };
  const px = place("x", width), py = place("y", height);
  const paint = painter(points, by);
  const shown = points.filter((p) => !hidden.has(paint.group(p)));
  const largest = Math.max(...points.map((p) => p.rate || 0), 1e-9);
  const radius = (p) => (width < 500 ? 2.2 : 3) + 6 * Math.sqrt((p.rate || 0) / largest);
  const svg = s("svg", { height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `map of ${points.length} atoms` });
  const labelled = (p) => by !== "behaviour" || p.label;
  for (const p of [...shown].sort((a, b) => Boolean(a.label) - Boolean(b.label) || (b.rate || 0) - (a.rate || 0)))
    svg.append(marker(by === "behaviour" && p.label ? shapeOf(p.label) : "circle", px(p.x), height - py(p.y), radius(p) * (labelled(p) ? 1 : 0.7), { color: paint.color(p), hollow: !labelled(p), opacity: labelled(p) ? 0.78 : 0.38, width: 1 }));
  const ring = s("circle", { r: 0, fill: "none", style: "stroke: var(--ink); stroke-width: 2" });
  const move = (event) => {
    const box = svg.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    const near = shown.map((p) => [Math.hypot(px(p.x) - x, height - py(p.y) - y), p]).reduce((a, b) => (b[0] < a[0] ? b : a), [24, null])[1];
    if (!near) { ring.setAttribute("r", 0); return tip.hide(); }
    build(ring, { cx: px(near.x), cy: height - py(near.y), r: radius(near) + 3 }, []);
    tip.show(event, atomTip(near));
  };
  svg.append(ring, s("rect", { class: "hot", width, height, onpointermove: move, onpointerleave: () => { ring.setAttribute("r", 0); tip.hide(); } }));
  host.replaceChildren(paint.legend(hidden, redraw), svg);
}

const span = (points, key) => { const [low, high] = extent(points.map((p) => p[key])); return high - low; };

function atomTip(p) {
  const rows = [["", "purity", percent(p.purity)], ["", "fires on", isNumber(p.rate) ? `${percent(p.rate)} of steps` : "–"], ["", "traces it fires in", isNumber(p.length) ? `${number(p.length)} tokens` : "–"], ["", "words", (p.words || []).join(", ") || "–"]];
  return [h("b", {}, h("i", { style: `--c: ${behaviourColour(p.label)}` }), p.label || "no clear label"), `${p.site} #${p.latent}`, tip.rows(rows.filter((row) => row[2] !== "–"))];
}

function painter(points, by) {
  if (by === "behaviour") {
    const names = DATA.behaviours.filter((name) => points.some((p) => p.label === name));
    const items = [...names.map((name) => ({ name, color: behaviourColour(name), shape: shapeOf(name) })), ...(points.some((p) => !p.label) ? [{ name: "no clear label", color: "var(--faint)", shape: "circle", hollow: true }] : [])];
    return { group: (p) => p.label || "no clear label", color: (p) => behaviourColour(p.label), legend: (hidden, redraw) => legend(items, hidden, redraw) };
  }
  if (by === "layer") {
    const layers = [...new Set(points.map((p) => p.layer))].sort((a, b) => a - b), [low, high] = extent(layers);
    const color = (layer) => rampColour(layers.length > 1 ? (layer - low) / (high - low) : 0.5);
    return { group: (p) => `layer ${p.layer}`, color: (p) => color(p.layer), legend: (hidden, redraw) => legend(layers.map((layer) => ({ name: `layer ${layer}`, color: color(layer), shape: "circle" })), hidden, redraw) };
  }
  const sorted = points.map((p) => p.length).filter(isNumber).sort((a, b) => a - b);
  const low = sorted[Math.floor(sorted.length * 0.02)], high = sorted[Math.floor((sorted.length - 1) * 0.98)]; // outliers must not flatten the scale
  return { group: () => "", color: (p) => (isNumber(p.length) ? rampColour((p.length - low) / (high - low || 1)) : "var(--faint)"),
    legend: () => h("div", { class: "legend" }, h("span", { class: "ramp" }, `${number(Math.round(low))} tokens`, h("i", { style: `background: ${RAMP_CSS}` }), `${number(Math.round(high))}`)) };
}
