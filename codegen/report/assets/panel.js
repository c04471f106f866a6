"use strict";
// What a box of the graph opens: its cost, its operators and its place in the generated code.

/** Show a part in the panel; `close` is called when the person is done with it. */
function openPanel(data, part, close) {
  const panel = document.querySelector("#panel");
  const code = el("div", { class: "code", tabindex: 0, role: "region", "aria-label": "Generated code" });
  const file = data.files[part.stage];
  const first = part.groups[0]?.operators.map((o) => o.line).filter((line) => line > 0) ?? [];
  const shut = el("button", { type: "button", class: "close", "aria-label": "Close", title: "Close (Esc)", onclick: close }, "×");
  panel.replaceChildren(
    el("div", { class: "title", style: `border-color: ${colour.bar(part.stage)}` },
      el("h3", {}, part.title), el("p", {}, aboutPart(data, part)), shut),
    el("div", { class: "operators" }, ...part.groups.map((group) => operatorTable(group, (line) => markLine(code, line)))),
    el("p", { class: "file" }, file?.name ?? ""),
    code,
  );
  panel.hidden = false;
  showCode(code, file?.source ?? "", new Set(part.groups.flatMap((g) => g.operators.map((o) => o.line))), part.stage);
  if (first.length) scrollToLine(code, first[0]);
}

function aboutPart(data, part) {
  const repeats = d3.sum(part.groups, (group) => group.paths.length);
  const total = d3.sum(data.parts, (other) => other.flops);
  const facts = [
    `stage ${part.stage}`,
    part.kind && (repeats > 1 ? `${repeats} × ${part.kind}` : part.kind),
    format.plural(part.operators, "operator"),
    part.weights && `${format.bytes(part.weights)} of weights`,
    part.flops && `${format.count(part.flops)}flop`,
    part.flops > 0.005 * total && `${format.percent(part.flops / total)} of all flops`,
    part.bytes && `${format.bytes(part.bytes)} moved`,
    part.seconds && `${format.seconds(part.seconds)} predicted`,
  ];
  return facts.filter(Boolean).join(" · ");
}

/** The end of a dotted path, which says most. */
function tail(path, letters) {
  return path.length > letters ? `…${path.slice(1 - letters)}` : path;
}

function operatorTable(group, go) {
  const [first, last] = [group.paths[0], group.paths[group.paths.length - 1]];
  const whose = first === last ? first : `${first} to ${last}: ${group.paths.length} alike, of which this is the first`;
  const timed = d3.max(group.operators, (o) => o.seconds);
  const columns = [
    { title: "Operator", cell: (o) => (o.line ? el("button", { type: "button", class: "link", onclick: () => go(o.line) }, o.name) : o.name) },
    { title: "In", cell: (o) => el("span", { class: "quiet", title: `${o.module} ${o.where}` }, tail(o.module, 18)) },
    { title: "Makes", cell: (o) => el("code", { title: o.type }, o.type) },
    { title: "Flops", number: true, cell: (o) => (o.flops ? format.count(o.flops) : "") },
    ...(timed ? [{ title: "Time", number: true, cell: (o) => (o.seconds ? format.seconds(o.seconds) : "") }] : []),
  ];
  const table = el("table", {});
  fillTable(table, columns, group.operators);
  return el("details", { open: true }, el("summary", {}, whose || "the model itself"), table);
}

function showCode(code, source, marked, stage) {
  code.style.setProperty("--mark", colour.fill(stage));
  code.style.setProperty("--edge", colour.bar(stage));
  const lines = source.split("\n").map((text, i) =>
    el("span", { class: marked.has(i + 1) ? "line marked" : "line", "data-line": i + 1 }, ...withComment(text)));
  code.replaceChildren(el("pre", {}, ...lines));
}

/** A line of Python with its comment apart, where no quote stands before the #. */
function withComment(text) {
  const at = text.search(/#(?![^"']*["'])/);
  const plain = at < 0 || /["']/.test(text.slice(0, at)) ? text.length : at;
  return [text.slice(0, plain), plain < text.length ? el("span", { class: "comment" }, text.slice(plain)) : "", "\n"];
}

function scrollToLine(code, line) {
  const shown = code.querySelector(`[data-line="${line}"]`);
  if (shown) code.scrollTop += shown.getBoundingClientRect().top - code.getBoundingClientRect().top - code.clientHeight / 5;
}

function markLine(code, line) {
  code.querySelector(".now")?.classList.remove("now");
  code.querySelector(`[data-line="${line}"]`)?.classList.add("now");
  scrollToLine(code, line);
}
