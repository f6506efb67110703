// The report's own script: sorting, filtering, charts, the point dialog. Text goes in as text, never as markup.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (selector, root = document) => root.querySelector(selector);
const column = Object.fromEntries(data.metrics.map((m, i) => [m.name, i]));
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "star", "hexagon", "triangle-down", "pentagon", "bowtie"];
const LIGHT = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b07d00", "#56b4e9", "#5b6570", "#7a4fbf"];
const DARK = ["#56b4e9", "#ff8f5c", "#2fc39b", "#e39ac4", "#e6b422", "#9fd4f5", "#b9c2cc", "#c6a0ff"];

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null && value !== undefined) node.setAttribute(name, value);
  node.append(...children.filter((c) => c !== null && c !== undefined));
  return node;
}
function number(value) {
  if (value === null || value === undefined) return "–";
  if (value === Infinity) return "∞";
  const size = Math.abs(value), places = size >= 100 ? 0 : size >= 10 ? 1 : 2;
  if (size && size < 1) return value < 0.001 ? value.toPrecision(3) : value.toFixed(2 - Math.floor(Math.log10(size)));
  return value.toLocaleString("en-US", { minimumFractionDigits: size ? places : 0, maximumFractionDigits: places });
}
const read = (raw) => (raw === "inf" ? Infinity : raw);
const first = (candidate) => data.points[candidate.points[0]];
const value = (candidate, metric) => (metric in column ? read((candidate.values || first(candidate).values)[column[metric]]) : null);
const believed = (candidate) => !["invalid", "failed", "below floor"].includes(candidate.standing);
const shown = (metric) => { const m = data.metrics[column[metric]]; return m.title.includes(m.unit) ? m.title : `${m.title}, ${m.unit}`; };
const escaped = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;"); // plotly reads its own small markup

// ---- choices
function choices(select, options, chosen) {
  for (const [key, text] of options) select.append(make("option", { value: key }, text));
  if (chosen !== undefined && chosen !== null) select.value = chosen;
}
const jobs = data.jobs.map((job, i) => [i, job.name]);
const ofKind = (test) => data.metrics.filter(test).map((m) => [m.name, shown(m.name)]);
const withValues = (m) => data.candidates.some((c) => believed(c) && Number.isFinite(value(c, m.name)));

// ---- table
const body = $("#table tbody"), rows = [...body.rows], tableControls = $("#table-controls");
choices(tableControls.job, jobs);
function filter() {
  const words = tableControls.text.value.toLowerCase().split(/\s+/).filter(Boolean);
  let visible = 0;
  for (const row of rows) {
    const fits = (!tableControls.job.value || row.dataset.job === tableControls.job.value)
      && (!tableControls.standing.value || row.dataset.standing === tableControls.standing.value)
      && words.every((word) => row.textContent.toLowerCase().includes(word));
    row.hidden = !fits; visible += fits;
  }
  $("output", tableControls).textContent = `${visible} of ${rows.length}`;
}
tableControls.addEventListener("input", filter);
tableControls.addEventListener("submit", (event) => event.preventDefault());
function sortKey(cell) {
  const raw = cell.dataset.sort ?? cell.textContent.trim();
  return raw !== "" && !Number.isNaN(Number(raw)) ? Number(raw) : raw;
}
$("#table thead").querySelectorAll("th").forEach((head, index) => {
  const button = make("button", { type: "button" }, ...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending", numeric = head.classList.contains("num");
    $("#table thead").querySelectorAll("th").forEach((other) => other.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const keyed = rows.map((row) => [sortKey(row.cells[index]), row]);
    const missing = (key) => numeric && typeof key !== "number";
    keyed.sort(([a], [b]) => {
      if (missing(a) || missing(b)) return missing(a) - missing(b); // what is unknown comes last either way
      const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
      return up ? order : -order;
    });
    body.append(...keyed.map(([, row]) => row));
  });
});
body.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-candidate]");
  if (button) open(data.candidates[button.dataset.candidate]);
});

// ---- charts
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
let printing = false;
const colours = () => (matchMedia("(prefers-color-scheme: dark)").matches && !printing ? DARK : LIGHT);
function layout(extra) {
  const axis = { gridcolor: style("--grid"), zerolinecolor: style("--grid"), linecolor: style("--rule"), automargin: true, separatethousands: true, exponentformat: "none", title: { standoff: 10 } };
  const merged = { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: style("--ink"), family: getComputedStyle(document.body).fontFamily, size: 13 },
    margin: { l: 56, r: 12, t: 12, b: 48 }, hoverlabel: { align: "left" }, separators: ".,", ...extra };
  merged.xaxis = { ...axis, ...extra.xaxis, title: { ...axis.title, ...extra.xaxis?.title } };
  merged.yaxis = { ...axis, ...extra.yaxis, title: { ...axis.title, ...extra.yaxis?.title } };
  return merged;
}
function draw(node, traces, extra) {
  node.querySelectorAll("p").forEach((p) => p.remove());
  return Plotly.react(node, traces, layout(extra), { displayModeBar: false, responsive: true });
}
function nothing(node, why) { Plotly.purge(node); node.replaceChildren(make("p", { class: "quiet" }, why)); }
const narrow = () => window.innerWidth < 640;

function front(points) { // least latency first; kept while throughput grows
  const kept = [];
  for (const point of [...points].sort((a, b) => a.x - b.x || b.y - a.y)) if (!kept.length || point.y > kept[kept.length - 1].y) kept.push(point);
  return kept;
}
function ticks(low, high) { // 1, 2, 5, 10, ... around what is shown
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high) + 1; power++)
    for (const step of [1, 2, 5]) found.push(Number(`${step}e${power}`));
  return found.filter((v) => v >= low / 2.5 && v <= high * 2.5);
}
const faint = (colour) => `${colour}55`;
function drawCurves() {
  const node = $("#curves-plot"), form = $("#curves-controls"), x = form.x.value, y = form.y.value, by = form.colour.value;
  const all = data.candidates.filter((c) => String(c.job) === form.job.value).map((c) => ({ c, x: value(c, x), y: value(c, y) }))
    .filter((p) => Number.isFinite(p.x) && Number.isFinite(p.y));
  if (!all.length) return nothing(node, "No point of this job has both figures: too few samples, or all failed.");
  const groups = [...new Set(data.candidates.map((c) => c.at[by]))], palette = colours(), traces = [];
  const seen = new Set(), many = new Set(all.map((p) => p.c.config)).size > 12; // a crowd is drawn finer
  for (const config of new Set(all.map((p) => p.c.config))) {
    const own = all.filter((p) => p.c.config === config).sort((a, b) => a.c.pushed - b.c.pushed);
    const group = own[0].c.at[by], index = groups.indexOf(group), colour = palette[index % palette.length];
    const symbol = SYMBOLS[index % SYMBOLS.length], simulated = own[0].c.simulated;
    traces.push({ x: own.map((p) => p.x), y: own.map((p) => p.y), mode: "lines+markers", name: escaped(group + (by === "engine" && simulated ? " (simulated)" : "")), legendgroup: group, showlegend: !seen.has(group),
      line: { color: many ? faint(colour) : colour, width: many ? 1 : 1.5, dash: simulated ? "dot" : "solid" }, marker: { color: colour, size: many ? 6 : 9, symbol: own.map((p) => (!believed(p.c) ? "x-open" : p.c.standing === "doubtful" ? `${symbol}-open` : symbol)) },
      text: own.map((p) => `${escaped(p.c.name)}<br>${escaped(p.c.push)} · ${escaped(p.c.mark)}${p.c.simulated ? " · SIMULATED" : ""}<br>${escaped(shown(x))}: ${number(p.x)}<br>${escaped(shown(y))}: ${number(p.y)}`), hoverinfo: "text" });
    seen.add(group);
  }
  const real = all.some((p) => believed(p.c) && !p.c.simulated);
  const best = front(all.filter((p) => believed(p.c) && !(real && p.c.simulated)));
  if (best.length) traces.push({ x: best.map((p) => p.x), y: best.map((p) => p.y), mode: "lines", name: "Pareto front", line: { color: style("--ink"), width: 1.5, dash: "dash", shape: "hv" }, hoverinfo: "skip" });
  const xs = all.map((p) => p.x), log = Math.max(...xs) > 8 * Math.min(...xs) && Math.min(...xs) > 0, limit = data.slos[x];
  const shapes = limit ? [{ type: "line", x0: limit, x1: limit, yref: "paper", y0: 0, y1: 1, line: { color: style("--bad"), dash: "dot", width: 1.5 } }] : [];
  const notes = limit ? [{ x: log ? Math.log10(limit) : limit, y: 1, yref: "paper", yanchor: "bottom", text: "SLO", showarrow: false, font: { color: style("--bad") } }] : [];
  draw(node, traces, { height: narrow() ? 420 : 480, margin: { l: 52, r: 12, t: 22, b: 48 }, shapes, annotations: notes,
    xaxis: { title: { text: escaped(shown(x)) }, type: log ? "log" : "linear", ...(log ? { tickvals: ticks(Math.min(...xs), Math.max(...xs)), ticktext: ticks(Math.min(...xs), Math.max(...xs)).map((v) => v.toLocaleString("en-US")) } : { rangemode: "tozero" }) },
    yaxis: { title: { text: escaped(shown(y)) }, rangemode: "tozero" }, legend: { orientation: "h", y: narrow() ? -0.24 : -0.16, yanchor: "top" } });
}
function drawMap() {
  const node = $("#map-plot"), form = $("#map-controls"), x = form.x.value, y = form.y.value, metric = form.metric.value;
  if (data.axes.length < 2) return nothing(node, "A heat map needs two settings that vary; this run varies " + (data.axes[0] || "none") + ".");
  if (x === y) return nothing(node, "Choose two different axes.");
  const real = data.candidates.some((c) => !c.simulated);
  const used = data.candidates.filter((c) => believed(c) && !(real && c.simulated) && (form.job.value === "" || String(c.job) === form.job.value) && Number.isFinite(value(c, metric)));
  if (!used.length) return nothing(node, "No believed point has this figure here.");
  const plain = (name) => ["none", "default", "auto"].includes(name); // the plainest value stands first
  const inOrder = (axis) => [...new Set(used.map((c) => c.at[axis]))].sort((a, b) => plain(b) - plain(a) || a.localeCompare(b, "en", { numeric: true }));
  const xs = inOrder(x), ys = inOrder(y), lower = data.metrics[column[metric]].better !== "higher";
  const cells = ys.map((down) => xs.map((across) => used.filter((c) => c.at[x] === across && c.at[y] === down)));
  const best = (found) => found.reduce((a, b) => ((value(b, metric) < value(a, metric)) === lower ? b : a));
  const z = cells.map((line) => line.map((found) => (found.length ? value(best(found), metric) : null)));
  const text = cells.map((line) => line.map((found) => (found.length ? `${escaped(best(found).name)}<br>${escaped(best(found).push)} · ${data.jobs[best(found).job] ? escaped(data.jobs[best(found).job].name) : ""}${best(found).simulated ? " · SIMULATED" : ""}<br>best of ${found.length}: ${number(value(best(found), metric))}` : "nothing believed")));
  const log = z.flat().every((v) => v === null || v > 0) && Math.max(...z.flat()) > 8 * Math.min(...z.flat().filter((v) => v !== null));
  const tone = (v) => (v === null ? null : log ? Math.log10(v) : v); // far apart: colours by ratio
  const flat = z.flat().map(tone).filter((v) => v !== null), low = Math.min(...flat), high = Math.max(...flat);
  const scale = [[0, "#e8f1f8"], [0.5, "#6aa6cf"], [1, "#0b4f83"]];
  const marks = []; // a number in every cell, dark on light and light on dark
  if (flat.length <= (narrow() ? 60 : 200)) z.forEach((line, j) => line.forEach((v, i) => {
    if (v === null) return marks.push({ x: i, y: j, text: "–", showarrow: false, font: { color: style("--quiet") } });
    const depth = high > low ? (lower ? high - tone(v) : tone(v) - low) / (high - low) : 0;
    marks.push({ x: i, y: j, text: number(v) + (best(cells[j][i]).standing === "slo missed" ? " *" : ""), showarrow: false, font: { size: narrow() ? 11 : 13, color: depth > 0.55 ? "#fff" : "#12202c" } });
  }));
  draw(node, [{ type: "heatmap", x: xs.map((_, i) => i), y: ys.map((_, j) => j), z: z.map((line) => line.map(tone)), text, hoverinfo: "text", colorscale: scale, reversescale: lower, xgap: 2, ygap: 2, showscale: !marks.length,
    colorbar: { tickvals: [low, (low + high) / 2, high], ticktext: [low, (low + high) / 2, high].map((v) => number(log ? 10 ** v : v)), thickness: 14, outlinewidth: 0 } }],
    { width: Math.min(node.clientWidth, 190 + 170 * xs.length), height: Math.max(220, 90 + 52 * ys.length), annotations: marks, margin: { l: 60, r: 10, t: 10, b: 52 },
      xaxis: { title: { text: escaped(x) }, tickvals: xs.map((_, i) => i), ticktext: xs.map(escaped), showgrid: false, zeroline: false },
      yaxis: { title: { text: escaped(y) }, tickvals: ys.map((_, j) => j), ticktext: ys.map(escaped), showgrid: false, zeroline: false, autorange: "reversed" } });
}
function drawBars() {
  const job = $("#bars-controls").job.value;
  for (const [id, metric] of [["#cost-bars", "cost_per_million_good_tokens"], ["#memory-bars", "memory_peak_bytes"]]) {
    const node = $(id);
    if (!node) continue;
    const used = data.candidates.filter((c) => String(c.job) === job && Number.isFinite(value(c, metric))).sort((a, b) => value(a, metric) - value(b, metric)).slice(0, 20);
    if (!used.length) { node.replaceChildren(make("p", { class: "quiet" }, metric in column ? "No candidate of this job has this figure." : "Not measured in this run.")); continue; }
    const most = Math.max(...used.map((c) => value(c, metric))), unit = data.metrics[column[metric]].unit;
    node.replaceChildren(...used.map((c) => {
      const fill = make("div", { class: "fill" });
      fill.style.width = `${(100 * value(c, metric)) / most}%`;
      const said = `${c.name} ${c.push}${c.simulated ? " (simulated)" : ""}${believed(c) && c.standing !== "slo missed" ? "" : ` ${c.mark}`}`;
      return make("div", { class: c.rank ? "bar" : "bar dim" }, make("div", {}, make("span", {}, said), make("b", {}, `${number(value(c, metric))} ${unit}`)), make("div", { class: "track" }, fill));
    }));
  }
}

// ---- the search
function drawStudy() {
  const study = data.study;
  if (!study) return;
  const sign = (look) => (look.feasible ? "circle" : look.open ? "circle-open" : "x");
  const kinds = [["screen", "short look"], ["full", "full look"], ["confirm", "confirmation"]], palette = colours();
  const at = new Map(study.looks.map((look, i) => [look, i + 1]));
  const traces = kinds.map(([kind, name], i) => {
    const mine = study.looks.filter((look) => look.fidelity === kind);
    return { type: "scatter", mode: "markers", name, x: mine.map((l) => at.get(l)), y: mine.map((l) => l.value), text: mine.map((l) => escaped(l.label)),
      error_y: { type: "data", array: mine.map((l) => l.spread || 0), thickness: 1, width: 2 }, hovertemplate: "%{text}<br>%{y:.4g}<extra>" + name + "</extra>",
      marker: { color: palette[i], size: 9, symbol: mine.map(sign) } };
  });
  const shown = study.looks.map((l) => l.value), wide = Math.min(...shown) > 0 && Math.max(...shown) > 5 * Math.min(...shown);
  let best = null;
  const line = study.looks.map((look) => { if (look.feasible && look.fidelity !== "screen" && (best === null || (study.minimize ? look.value < best : look.value > best))) best = look.value; return best; });
  traces.push({ type: "scatter", mode: "lines", name: "best so far", x: line.map((_, i) => i + 1), y: line, line: { shape: "hv", width: 2, color: palette[6] }, hoverinfo: "skip" });
  draw($("#study-history"), traces, { height: 360, xaxis: { title: { text: "look" } }, yaxis: { title: { text: study.metric }, type: wide ? "log" : "linear" }, legend: { orientation: "h", y: 1.12 } });
  const front = $("#study-front");
  if (front) draw(front, [{ type: "scatter", mode: "markers", x: study.looks.map((l) => l.values[study.goals[0]]), y: study.looks.map((l) => l.values[study.goals[1]]), text: study.looks.map((l) => escaped(l.label)),
    hovertemplate: "%{text}<extra></extra>", marker: { color: palette[0], size: 9, symbol: study.looks.map(sign) } }], { height: 360, xaxis: { title: { text: study.goals[0] } }, yaxis: { title: { text: study.goals[1] } } });
  const trials = study.looks.filter((look) => look.fidelity !== "confirm"), node = $("#study-parallel");
  if (trials.length < 2 || narrow()) { nothing(node, narrow() ? "Parallel coordinates need a wider window." : "Too few trials for parallel coordinates."); return; }
  const names = [...study.settings, study.metric], values = trials.map((l) => l.value), low = Math.min(...values), high = Math.max(...values);
  const levels = study.settings.map((name) => [...new Set(trials.map((l) => String(l.settings[name] ?? "default")))].sort((a, b) => Number(a) - Number(b) || a.localeCompare(b)));
  const height = (index, count) => (count > 1 ? index / (count - 1) : 0.5);
  const ranked = [...values].sort((a, b) => (study.minimize ? a - b : b - a)), good = ranked[Math.floor((ranked.length - 1) / 4)];
  const lines = trials.map((look) => {
    const best = study.minimize ? look.value <= good : look.value >= good;
    return { type: "scatter", mode: "lines", showlegend: false, x: names.map((_, i) => i), text: names.map(() => escaped(look.label)), hovertemplate: "%{text}<extra></extra>",
      y: [...study.settings.map((name, i) => height(levels[i].indexOf(String(look.settings[name] ?? "default")), levels[i].length)), high > low ? (look.value - low) / (high - low) : 0.5],
      line: { color: best ? palette[1] : faint(palette[6]), width: best ? 2.5 : 1.2 } };
  });
  const marks = [...levels.map((found) => found.map((text, k) => [text, height(k, found.length)])), [[number(low), 0], [number(high), 1]]];
  draw(node, lines, { height: 340, margin: { l: 30, r: 60, t: 12, b: 40 }, xaxis: { tickvals: names.map((_, i) => i), ticktext: names, zeroline: false }, yaxis: { visible: false, range: [-0.08, 1.08] },
    annotations: marks.flatMap((found, x) => found.map(([text, y]) => ({ x, y, text: escaped(text), showarrow: false, xanchor: "left", xshift: 5, font: { size: 11, color: style("--ink") } }))) });
}
// ---- one point
function pairs(object) {
  return make("dl", { class: "facts" }, ...Object.entries(object).map(([k, v]) => make("div", {}, make("dt", {}, k), make("dd", {}, String(v)))));
}
function open(candidate, chosen = candidate.points[0]) {
  const point = data.points[chosen], root = $("#point-body");
  $("#point-title").textContent = `${candidate.name} · ${data.jobs[candidate.job].name} · ${candidate.push}`;
  const facts = make("p", { class: "quiet" }, `${point.simulated ? "SIMULATED · " : ""}${candidate.mark} · point ${point.key} · launch ${point.launch || "–"} · ${point.version || ""}`);
  root.replaceChildren(facts);
  if (candidate.points.length > 1) {
    const select = make("select", {}, ...candidate.points.map((p) => make("option", { value: p }, `repeat ${data.points[p].repeat + 1}: ${data.points[p].verdict}`)));
    select.value = chosen;
    select.addEventListener("change", () => open(candidate, Number(select.value)));
    root.append(make("label", { class: "controls" }, select));
  }
  for (const [verdict, text, remedy] of point.reasons)
    root.append(make("div", { class: `reason ${verdict === "invalid" ? "invalid" : "doubtful"}` }, make("p", {}, `${verdict}: ${text}`), remedy ? make("p", { class: "hint" }, make("b", {}, "remedy"), remedy) : null));
  for (const [text, hint] of point.failed)
    root.append(make("div", { class: "reason invalid" }, make("p", {}, text), make("p", { class: "hint" }, make("b", {}, "hint"), hint)));
  if (!point.reasons.length) root.append(make("p", {}, "Nothing speaks against this measurement."));
  if (point.slos.length) root.append(make("p", {}, "SLOs: " + point.slos.map(([text, state]) => `${text} ${state}`).join(" · ")));
  const plots = make("div", { class: "pair" });
  root.append(plots);
  root.append(make("h3", {}, "Metrics"), make("p", { class: "note" }, "Point at a name to see where its definition comes from."), metricTable(point));
  root.append(make("h3", {}, "Settings asked for"), pairs(point.settings), make("h3", {}, "The server's own account"), pairs(point.effective), make("h3", {}, "Load"), pairs(point.load));
  for (const note of point.notes) root.append(make("p", { class: "note" }, `note: ${note}`));
  const dialog = $("#point");
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  pointPlots(point, plots);
}
function metricTable(point) {
  const lines = data.metrics.map((m, i) => {
    const found = read(point.values[i]), need = point.need[i];
    if (found === null && !need) return null;
    return make("tr", {}, make("td", { title: `${m.doc} (${m.source})` }, m.title), make("td", { class: "num" }, found === null ? `n<${need}` : number(found)), make("td", { class: "quiet" }, m.unit), make("td", { class: "quiet" }, m.doc));
  });
  return make("div", { class: "scroll", tabindex: "0" }, make("table", { class: "wrap" }, make("tbody", {}, ...lines.filter(Boolean))));
}
function pointPlots(point, into) {
  const palette = colours(), pending = []; // containers first, drawing after: a plot takes the width its neighbours leave
  const add = (title, traces, extra) => { const plot = make("div", { class: "plot" }); into.append(make("div", {}, make("h3", {}, title), plot)); pending.push(() => draw(plot, traces, extra)); };
  const small = { height: 240, showlegend: false, margin: { l: 50, r: 10, t: 8, b: 42 } };
  const names = { ttft: "Time to first token", tpot: "Time per output token", icl: "Gap between output events" };
  Object.entries(point.quantiles).forEach(([name, quantiles], i) => add(`${names[name]}, share of ${name === "icl" ? "gaps" : "requests"} below`,
    [{ x: quantiles, y: data.shares.map((s) => 100 * s), mode: "lines", line: { color: palette[i], width: 2, shape: "hv" }, hovertemplate: "%{y:.0f}% within %{x:.4g} ms<extra></extra>" }],
    { ...small, xaxis: { title: { text: "ms" }, rangemode: "tozero" }, yaxis: { title: { text: "%" }, range: [0, 102] } }));
  if (point.end_s === null) return pending.forEach((drawn) => drawn());
  const step = point.end_s / point.tokens_per_s.length, times = point.tokens_per_s.map((_, i) => (i + 0.5) * step);
  const shade = point.window_s ? [{ type: "rect", x0: point.window_s[0], x1: point.window_s[1], yref: "paper", y0: 0, y1: 1, fillcolor: style("--accent"), opacity: 0.1, line: { width: 0 }, layer: "below" }] : [];
  for (const [title, values, unit, i] of [["Output tokens a second", point.tokens_per_s, "tokens/s", 4], ["Requests in flight", point.in_flight, "requests", 3]])
    add(point.window_s ? `${title} (shaded: steady)` : title, [{ x: times, y: values, mode: "lines", line: { color: palette[i], width: 1.8 }, hovertemplate: "%{y:.4g} at %{x:.3g} s<extra></extra>" }],
      { ...small, shapes: shade, xaxis: { title: { text: "s" }, range: [0, point.end_s] }, yaxis: { title: { text: unit }, rangemode: "tozero" } });
  pending.forEach((drawn) => drawn());
}
$("#point").addEventListener("click", (event) => { if (event.target === event.currentTarget) event.currentTarget.close(); });

// ---- begin
const latency = ofKind((m) => m.unit === "ms" && /^(ttft|tpot|e2e|icl|itl)_(p\d+|mean)_ms$/.test(m.name) && withValues(m));
const speed = ofKind((m) => ["output_token_throughput_per_s", "request_throughput_per_s", "goodput_per_s", "total_token_throughput_per_s"].includes(m.name) && withValues(m));
const common = (name) => { const some = data.candidates.filter(believed); return 2 * some.filter((c) => Number.isFinite(value(c, name))).length > some.length; };
const wanted = [...Object.keys(data.slos), "ttft_p99_ms", "ttft_p95_ms", "ttft_p90_ms", "ttft_p50_ms", "ttft_mean_ms", "e2e_p50_ms", "e2e_mean_ms"]
  .find((name) => latency.some(([key]) => key === name) && common(name)); // what most can show
function begin() {
  const curves = $("#curves-controls"), map = $("#map-controls"), bars = $("#bars-controls");
  for (const form of [curves, map, bars]) { choices(form.job, jobs); form.addEventListener("submit", (event) => event.preventDefault()); }
  choices(curves.x, latency, wanted);
  choices(curves.y, speed);
  const coloured = data.axes.length ? data.axes : ["engine"];
  choices(curves.colour, coloured.map((a) => [a, a]), coloured[0]);
  choices(map.x, data.axes.map((a) => [a, a]), data.axes.find((a) => ["concurrency", "rate_per_s"].includes(a)) || data.axes[1]);
  choices(map.y, data.axes.map((a) => [a, a]), data.axes.find((a) => a !== map.x.value && a === "quantization") || data.axes.find((a) => a !== map.x.value));
  choices(map.metric, ofKind((m) => m.better && withValues(m)), data.objective);
  if (jobs.length) map.job.value = "0";
  curves.addEventListener("input", drawCurves);
  map.addEventListener("input", drawMap);
  bars.addEventListener("input", drawBars);
  filter();
  redraw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  addEventListener("beforeprint", () => { printing = true; redraw(); });
  addEventListener("afterprint", () => { printing = false; redraw(); });
  document.documentElement.dataset.ready = "yes";
}
function redraw() { drawStudy(); drawCurves(); drawMap(); drawBars(); }
begin();
