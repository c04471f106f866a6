"use strict";
// The numbers of a plan: key figures, stages, what flows between them, and the passes.

function fillTable(table, columns, rows) {
  const head = columns.map((c) => el("th", { scope: "col", class: c.number && "number" }, c.title));
  const body = rows.map((row) => el("tr", {}, ...columns.map((c) => el("td", { class: c.number && "number" }, c.cell(row)))));
  table.replaceChildren(el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...body));
}

function showHeading(data) {
  const { summary } = data;
  const devices = new Set(data.placement).size;
  const at = sizesOf(summary);
  document.querySelector("h1").textContent = summary.model;
  document.querySelector("#subject").textContent =
    `${format.plural(summary.stages.length, "stage")} on ${format.plural(devices, "device")}, cut for ${summary.objective}` +
    (at ? `. Times and bytes are ${at}.` : ".");
  const [first, ...others] = data.programs ?? [];
  if (others.length) {
    document.querySelector("#graph-lead").before(el("p", { class: "lead" }, `Of the program ${first}; the others are ${others.join(", ")}.`));
  }
  const notes = document.querySelector("#notes");
  notes.hidden = !summary.notes?.length;
  notes.replaceChildren(...(summary.notes ?? []).map((note) => el("li", {}, note)));
}

function named(sizes) {
  return Object.entries(sizes).map(([name, size]) => `${name} ${size}`).join(", ");
}

function sizesOf({ calls, made_up }) {
  const texts = calls.map(({ sizes }) => named(sizes));
  if (calls.length === 1) return texts[0] && `of one batch of ${texts[0]}${made_up ? ", sizes that were made up" : ""}`;
  const shares = calls.map((call, i) => `${format.percent(call.share)} ${texts[i]} (${format.seconds(call.bottleneck_seconds)})`);
  return `of a batch on average over a mix: ${shares.join("; ")}`;
}

function showFigures(data) {
  const { summary } = data;
  const above = summary.proven ? summary.above : 1 / (1 - summary.gap) - 1;
  const ranges = Object.entries(summary.good_for).map(([size, [low, high]]) => `${size} ${low} to ${high}`);
  const own = summary.quantity === "bottleneck" ? [] : [[capitalized(summary.quantity), format.seconds(summary.value_seconds), "a batch, alone in all stages"]];
  const figures = [
    ...own,
    [
      "Busiest device",
      format.seconds(summary.bottleneck_seconds),
      `a batch, so ${format.rate(summary.bottleneck_seconds)}`,
    ],
    [
      "Above the best cut",
      above < 1e-6 ? "0 %" : `${summary.proven ? "" : "≤ "}${d3.format(".1f")(Math.max(100 * above, 0.1))} %`,
      `${summary.proven ? "proven: " : ""}no cut is below ${format.seconds(summary.lower_bound_seconds)}; ${summary.place}`,
    ],
    ["Balance", d3.format(".2f")(summary.balance), "busiest device over the mean"],
    ["Over the cuts", format.bytes(summary.cut_bytes), inPlace(summary)],
  ];
  if (ranges.length) figures.push([`Within ${+(100 * summary.close).toFixed(2)} % of the best`, ranges[0], ranges.slice(1).join(", ")]);
  const [better, ...others] = summary.better.map(({ sizes, gain }) => [format.percent(gain), `at ${named(sizes)}`]);
  if (better) figures.push(["Another cut is better", better[0], [better[1], ...others.map((other) => other.join(" "))].join("; ")]);
  const shown = figures.map(([name, value, more]) => el("div", {}, el("dt", {}, name), el("dd", {}, value), el("dd", { class: "more" }, more)));
  document.querySelector("#figures").replaceChildren(...shown);
}

function capitalized(word) {
  return word[0].toUpperCase() + word.slice(1);
}

function inPlace(summary) {
  const [cut, best] = [format.bytes(summary.cut_bytes), format.bytes(summary.best_cut_bytes)];
  return cut === best ? "a batch" : `a batch, in place of ${best}`;
}

function showStages(data) {
  const { stages } = data.summary;
  const most = Math.max(...stages.map((s) => s.compute_seconds), ...(data.measured_seconds ?? []));
  const timed = (seconds, stage) =>
    el("span", { class: "timed" }, bar(seconds / most, stage), el("span", { class: "amount" }, format.seconds(seconds)));
  const columns = [
    { title: "Stage", cell: (s) => el("span", { class: "name" }, swatch(s.stage), String(s.stage)) },
    { title: "Device", cell: (s) => s.device },
    { title: "Parameters", number: true, cell: (s) => format.count(s.parameters) },
    { title: "Weights", number: true, cell: (s) => format.bytes(s.weight_bytes - s.cache_bytes) },
    ...(stages.some((s) => s.cache_bytes) ? [{ title: "Cache", number: true, cell: (s) => format.bytes(s.cache_bytes) }] : []),
    { title: "Activations", number: true, cell: (s) => format.bytes(s.activation_bytes) },
    { title: "Transfers", number: true, cell: (s) => format.seconds(s.receive_seconds + s.send_seconds) },
    { title: "Share", number: true, cell: (s) => format.percent(s.share) },
    { title: "Predicted", cell: (s) => timed(s.compute_seconds, s.stage) },
  ];
  if (data.measured_seconds)
    columns.push(
      { title: "Measured", cell: (s) => timed(data.measured_seconds[s.stage], s.stage) },
      { title: "Measured / predicted", number: true, cell: (s) => ratio(data.measured_seconds[s.stage], s.compute_seconds) },
    );
  fillTable(document.querySelector("#stages"), columns, stages);
}

function speed(perSecond) {
  return perSecond < 10 ? d3.format(".2~r")(perSecond) : format.count(Math.round(perSecond));
}

/** The tokens a second of a decoder, by the texts that it continues at once. */
function showDecoding(data) {
  const { decoding } = data.summary;
  const most = Math.max(...decoding.map((d) => d.tokens_per_second));
  const columns = [
    { title: "Texts at once", number: true, cell: (d) => format.count(d.texts) },
    { title: "A token of each", number: true, cell: (d) => format.seconds(d.token_seconds) },
    { title: "Tokens a second", cell: (d) => el("span", { class: "timed" }, bar(d.tokens_per_second / most), el("span", { class: "amount" }, speed(d.tokens_per_second))) },
  ];
  const section = document.querySelector("#decoding");
  section.hidden = !decoding.length;
  if (decoding.length) fillTable(section.querySelector("table"), columns, decoding);
}

function ratio(measured, predicted) {
  return predicted ? d3.format(".2f")(measured / predicted) : "–";
}

function bar(share, stage) {
  const look = stage === undefined ? "" : `background: ${colour.bar(stage)}; border-color: ${colour.line(stage)};`;
  return el("span", { class: "track", "aria-hidden": true }, el("span", { style: `${look} width: ${(100 * share).toFixed(2)}%` }));
}

/** What crosses the borders of stages; the caller is one end of the model's inputs and outputs. */
function showFlow(data) {
  const { stages } = data.summary;
  const inputs = new Map();
  for (const s of stages)
    for (const edge of s.receives.filter((e) => !e.stages.length))
      inputs.set(edge.name, { ...edge, from: "input", to: [...(inputs.get(edge.name)?.to ?? []), s.stage] });
  const sends = stages.flatMap((s) =>
    s.sends.map((edge) => ({ ...edge, from: s.stage, to: [...edge.stages, ...(edge.is_output ? ["output"] : [])] })));
  const end = (e) => (typeof e === "number" ? el("span", { class: "name" }, swatch(e), String(e)) : e);
  const columns = [
    { title: "From", cell: (e) => end(e.from) },
    { title: "To", cell: (e) => el("span", { class: "ends" }, ...e.to.map(end)) },
    { title: "Value", cell: (e) => el("code", {}, e.name) },
    { title: "Type", cell: (e) => el("code", {}, e.type) },
    { title: "Bytes", number: true, cell: (e) => format.bytes(e.bytes) },
  ];
  const rows = [...inputs.values(), ...sends];
  const details = document.querySelector("#flow");
  details.querySelector("summary").textContent = `What flows: ${format.plural(rows.length, "value")}`;
  details.open = rows.length <= 12;
  fillTable(details.querySelector("table"), columns, rows);
}

function showPasses(data) {
  const most = Math.max(...data.passes.map((p) => p.seconds), 1e-9);
  const columns = [
    { title: "Pass", cell: (p) => el("code", {}, p.name) },
    { title: "Time", cell: (p) => el("span", { class: "timed" }, bar(p.seconds / most), el("span", { class: "amount" }, format.seconds(p.seconds))) },
    { title: "What it changed", cell: (p) => p.changed },
  ];
  document.querySelector("#passes").closest("section").hidden = !data.passes.length;
  fillTable(document.querySelector("#passes"), columns, data.passes);
}
