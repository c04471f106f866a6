"use strict";
// Time and memory, drawn by Observable Plot.

const WIDTH = 1180;
const LEFT = 150;
const RIGHT = 120;

function showTime(data) {
  const work = data.work;
  const busy = d3.rollup(work, (stages) => d3.sum(stages, (w) => w.receive + w.compute + w.send), (w) => w.device);
  const slowest = d3.greatest(busy, ([, seconds]) => seconds)[0];
  const bottleneck = busy.get(slowest);
  const named = d3.range(work.length).filter((i) => work[i].device === slowest);
  const predicted = data.predicted.map(span), measured = data.measured.map(span);
  const end = d3.max([...predicted, ...measured], (s) => s.end);
  const microbatches = 1 + d3.max(predicted, (s) => s.microbatch);
  const idle = 1 - d3.sum(busy.values()) / (busy.size * bottleneck);
  document.querySelector("#time-lead").textContent =
    `${format.plural(microbatches, "microbatch").replace("microbatchs", "microbatches")}, numbered. ` +
    `In a long stream one is done every ${format.seconds(bottleneck)}, the time of ${named.length > 1 ? "stages" : "stage"} ` +
    `${named.join(" and ")}${busy.size > 1 ? `; the devices then stand idle ${d3.format(".1%")(idle)} of the time.` : "."}`;
  document.querySelector("#time-legend").replaceChildren(
    key("compute", "computes"), key("transfer", "receives or sends"), key("idle", "idle: the bubble"));
  const rows = { stages: work.length, end };
  timeline(document.querySelector("#predicted"), "Predicted", predicted, { ...rows, slowest: new Set(named) });
  const figure = document.querySelector("#measured");
  figure.hidden = !measured.length;
  const slow = d3.greatestIndex(data.measured_seconds ?? []);
  if (measured.length) timeline(figure, "Measured", measured, { ...rows, slowest: new Set([slow]) });
}

/** Ticks such as 0, 20 ms, 40 ms. */
function amountOf(unit) {
  return (n) => (n ? `${d3.format(",~r")(n)} ${unit}` : "0");
}

function span([stage, microbatch, kind, start, end]) {
  return { stage, microbatch, kind, start, end };
}

function key(look, text) {
  return el("span", {}, el("span", { class: `key ${look}` }), text);
}

function timeline(figure, title, spans, { stages, slowest, end }) {
  const { unit, scale } = format.timescale(end);
  const high = stages > 24 ? 14 : stages > 8 ? 22 : 30;
  const last = d3.max(spans, (s) => s.end);
  const x = (s) => s / scale;
  const pixels = (WIDTH - LEFT - RIGHT) / x(end);
  const computes = spans.filter((s) => s.kind === "compute"), transfers = spans.filter((s) => s.kind !== "compute");
  const work = d3.rollup(spans, (of) => d3.sum(of, (s) => s.end - s.start), (s) => s.stage);
  const numbered = computes.filter((s) => x(s.end - s.start) * pixels > 8 * String(s.microbatch).length + 4 && high > 14);
  const chart = Plot.plot({
    width: WIDTH, marginLeft: LEFT, marginRight: RIGHT, height: stages * high + 32, marginTop: 4, marginBottom: 28,
    x: { domain: [0, x(end)], label: null, ticks: 8, tickFormat: amountOf(unit) },
    y: { domain: d3.range(stages), type: "band", padding: 0.18, axis: null },
    ariaLabel: `${title} timeline of ${stages} stages`,
    marks: [
      Plot.barX(d3.range(stages), { x1: 0, x2: x(last), y: (i) => i, className: "idle-track", ariaHidden: true }),
      Plot.barX(computes, {
        x1: (s) => x(s.start), x2: (s) => x(s.end), y: "stage", fill: (s) => colour.bar(s.stage), stroke: (s) => colour.line(s.stage),
        strokeWidth: 0.75, insetLeft: 0.5, insetRight: 0.5, rx: 2, title: described, tip: false,
      }),
      Plot.barX(transfers, {
        x1: (s) => x(s.start), x2: (s) => x(s.end), y: "stage", fill: (s) => colour.line(s.stage),
        insetTop: high * 0.3, insetBottom: high * 0.3, title: described,
      }),
      Plot.text(numbered, { x: (s) => x((s.start + s.end) / 2), y: "stage", text: (s) => String(s.microbatch), className: "on-bar" }),
      ...d3.groups(d3.range(stages), (i) => slowest.has(i)).map(([most, some]) => Plot.text(some, {
        y: (i) => i, frameAnchor: "left", textAnchor: "end", dx: -10, text: (i) => `stage ${i}${most ? " · slowest" : ""}`,
        className: most ? "row-label most" : "row-label",
      })),
      Plot.text(d3.range(stages), {
        y: (i) => i, frameAnchor: "right", textAnchor: "start", dx: 10, text: (i) => `busy ${format.percent((work.get(i) ?? 0) / last)}`,
        className: "row-note",
      }),
    ],
  });
  chart.setAttribute("role", "img");
  figure.replaceChildren(el("figcaption", {}, el("b", {}, title), ` ${format.seconds(last)} in all`), chart);
}

function described(s) {
  const what = { compute: "computes", receive: "receives", send: "sends" }[s.kind];
  return `stage ${s.stage} ${what} microbatch ${s.microbatch}: ${format.seconds(s.end - s.start)}, from ${format.seconds(s.start)}`;
}

// ---- memory

const KINDS = [["weights", 1], ["state", 0.62], ["activations", 0.28]]; // with the strength of the colour

function showMemory(data) {
  const devices = [...new Set(data.placement)].map((device) => memoryOf(data, device));
  const parts = devices.flatMap((device) => device.parts);
  const most = d3.max(devices, (d) => d.used), limit = d3.max(devices, (d) => d.limit);
  const near = limit < 6 * most; // else the bars would vanish beside their limit
  const end = near ? Math.max(limit, most) * 1.02 : most * 1.08;
  const { unit, scale } = byteScale(end);
  const x = (n) => n / scale;
  const share = (d) => `${format.percent(d.used / d.limit)} of ${format.bytes(d.limit)}`.replace(/^0%/, "< 1%");
  const label = (d) => (d.limit === null ? format.bytes(d.used) : share(d)); // null: a plan for devices elsewhere
  const kinds = KINDS.filter(([kind]) => parts.some((p) => p.kind === kind && p.bytes));
  document.querySelector("#memory-lead").textContent = data.in_flight > 1
    ? `Activations are those of ${data.in_flight} microbatches in flight, at their peak.` : "Activations are at their peak.";
  document.querySelector("#memory-legend").replaceChildren(
    ...kinds.map(([kind, strength]) => el("span", {}, el("span", { class: "key", style: `opacity: ${strength}` }), kind)),
    ...(near ? [el("span", {}, el("span", { class: "key limit" }), "the most that the device may hold")] : []));
  const high = devices.length > 24 ? 16 : 30;
  const roomy = parts.filter((p) => (p.bytes / end) * (WIDTH - LEFT - RIGHT) > 64 && high > 16);
  const chart = Plot.plot({
    width: WIDTH, marginLeft: LEFT, marginRight: RIGHT, height: devices.length * high + 32, marginTop: 4, marginBottom: 28,
    x: { domain: [0, x(end)], label: null, ticks: 8, tickFormat: amountOf(unit) },
    y: { domain: devices.map((d) => d.name), type: "band", padding: 0.24, axis: null },
    ariaLabel: `Memory of ${devices.length} devices`,
    marks: [
      Plot.barX(parts, {
        x1: (p) => x(p.from), x2: (p) => x(p.from + p.bytes), y: "device", fill: (p) => colour.bar(p.stage), fillOpacity: "strength",
        stroke: (p) => colour.line(p.stage), strokeWidth: 0.75, title: (p) => `stage ${p.stage}: ${format.bytes(p.bytes)} of ${p.kind}`,
      }),
      ...d3.groups(roomy, (p) => p.strength < 0.5).map(([faint, some]) => Plot.text(some, {
        x: (p) => x(p.from + p.bytes / 2), y: "device", text: (p) => format.bytes(p.bytes), className: faint ? "on-faint" : "on-bar",
      })),
      ...(near ? [Plot.tickX(devices, { x: (d) => x(d.limit), y: "name", strokeWidth: 2, className: "limit" })] : []),
      Plot.text(devices, { y: "name", frameAnchor: "left", textAnchor: "end", dx: -10, text: "name", className: "row-label" }),
      Plot.text(devices, { y: "name", frameAnchor: "right", textAnchor: "start", dx: 10, text: label, className: "row-note" }),
    ],
  });
  chart.setAttribute("role", "img");
  document.querySelector("#memory").replaceChildren(chart);
}

/** The stages of one device, their parts after one another. */
function memoryOf(data, device) {
  const stages = d3.range(data.memory.length).filter((i) => data.placement[i] === device);
  const name = `${stages.length > 1 ? "stages" : "stage"} ${stages.join(", ")} · ${data.devices[device]}`;
  const parts = [];
  let from = 0;
  for (const stage of stages)
    for (const [kind, strength] of KINDS) {
      const bytes = data.memory[stage][kind];
      if (bytes) parts.push({ device: name, stage, kind, strength, bytes, from });
      from += bytes;
    }
  return { name, parts, used: from, limit: data.memory[stages[0]].limit };
}

function byteScale(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const power = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(n, 1)) / 10));
  return { unit: units[power], scale: 1024 ** power };
}
