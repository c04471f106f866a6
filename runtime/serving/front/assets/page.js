"use strict";

const EVERY = 1000; // milliseconds between two looks
const KEPT = 120; // looks that the charts show
const HUES = ["#5b92c9", "#d97550", "#3aa585", "#c9b04a", "#d98095", "#9fae2c", "#7cb8dc", "#8f8f1a"];
const STORED = "stagecut token";
const history = [];
let writing = null;

const $ = (selector) => document.querySelector(selector);

/** An element with attributes and children; text enters it as text. */
function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

const hue = (stage) => `--colour: ${HUES[stage % HUES.length]}`;
const percent = (share) => `${Math.round(100 * share)} %`;
const number = (value) => (value >= 100 ? Math.round(value).toLocaleString("en") : value >= 10 ? value.toFixed(1) : value.toFixed(value ? 2 : 0));

function seconds(value) {
  if (value === null) return "–";
  return value >= 1 ? `${number(value)} s` : `${number(1000 * value)} ms`;
}

function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  for (; value >= 1024 && unit < 4; unit++) value /= 1024;
  return `${unit ? value.toFixed(value < 10 ? 1 : 0) : value} ${units[unit]}`;
}

function time(value) {
  const [days, hours, minutes] = [value / 86400, (value / 3600) % 24, (value / 60) % 60].map(Math.floor);
  return days ? `${days} d ${hours} h` : hours ? `${hours} h ${minutes} min` : minutes ? `${minutes} min` : `${Math.floor(value)} s`;
}

/** Ask this server, with its token. */
function ask(path, options = {}) {
  const token = sessionStorage.getItem(STORED);
  const headers = { ...options.headers, ...(token ? { authorization: `Bearer ${token}` } : {}) };
  return fetch(path, { ...options, headers });
}

// ---- what is served, and how it does

async function look() {
  try {
    const answer = await ask("/status");
    $("#token").hidden = answer.status !== 401;
    if (answer.status === 401) return tell("a token is needed", "");
    show(await answer.json());
  } catch {
    tell("no answer; the server may have ended", "failed");
  } finally {
    setTimeout(look, EVERY);
  }
}

function tell(state, kind) {
  $("#state").textContent = state;
  $("#state").className = kind;
}

function show(status) {
  if ($("main").hidden) begin(status);
  tell(stateOf(status), status.ready ? "ready" : status.state.startsWith("failed") ? "failed" : "");
  const requests = status.requests;
  history.push({ rate: requests.rate, median: requests.median, p99: requests.p99 });
  if (history.length > KEPT) history.shift();
  figures(status);
  table(status);
  chart($("#rates"), [history.map((h) => h.rate)], "requests a second");
  chart($("#times"), [history.map((h) => h.median && 1000 * h.median), history.map((h) => h.p99 && 1000 * h.p99)], "milliseconds");
  $("#statuses").replaceChildren(...Object.entries(requests.statuses).map(([code, count]) =>
    el("li", code >= "500" ? { class: "bad" } : {}, el("b", {}, code), count.toLocaleString("en"))));
  light(status);
  document.body.dataset.ready = status.ready;
}

function stateOf(status) {
  const loading = status.engines.find((engine) => engine.state === "loading");
  const engines = status.engines.length > 1 ? `, ${status.engines.filter((e) => e.state === "ready").length} of ${status.engines.length} engines` : "";
  return (loading ? `loading, ${bytes(loading.read)} read` : status.state) + engines;
}

/** Once: what does not change. */
function begin(status) {
  document.title = `${status.name} · stagecut`;
  $("#name").textContent = status.name;
  const kinds = (list) => list.map((t) => `${t.name} ${t.datatype}[${t.parameters?.sizes ?? t.shape.join(", ")}]`).join(", ");
  const count = `${status.cut.length} ${status.cut.length > 1 ? "stages" : "stage"}`;
  $("#subject").textContent = status.texts ? `${count} · writes texts` : `${count} · ${kinds(status.inputs)} → ${kinds(status.outputs)}`;
  $("#prompt").hidden = !status.texts;
  $("#request").hidden = status.texts;
  $("#chat-option").hidden = !status.chat;
  $("#chat").checked = status.chat;
  if (!status.texts) $("#curl").textContent = curl(status);
  $("main").hidden = false;
  draw(status);
}

function figures(status) {
  const restarts = status.engines.reduce((sum, engine) => sum + Math.max(engine.starts - 1, 0), 0);
  const shown = {
    "requests a second": number(status.requests.rate),
    median: seconds(status.requests.median),
    "99 %": seconds(status.requests.p99),
    ...(status.texts ? { "texts in progress": status.in_progress } : { "in flight": `${status.running} of ${status.slots}`, waiting: status.waiting }),
    up: time(status.requests.up),
    restarts,
  };
  $("#figures").replaceChildren(...Object.entries(shown).map(([name, value]) =>
    el("div", {}, el("dt", {}, name), el("dd", {}, String(value)))));
}

function table(status) {
  const several = status.engines.length > 1;
  const head = ["stage", ...(several ? ["engine"] : []), "device", "busy", "waiting", "weights", "memory"];
  const numbers = new Set(["waiting", "weights", "memory"]);
  const cell = (tag, name, ...children) => el(tag, numbers.has(name) ? { class: "number" } : {}, ...children);
  const known = status.stages.length ? status.stages : status.cut.map((stage, i) => ({ stage: i, device: stage.device, busy: null, engine: 0 }));
  const rows = known.map((s) => {
    const busy = el("span", { class: "busy" }, el("span", { class: "track" }, el("span", { style: `width: ${100 * (s.busy ?? 0)}%` })),
      el("span", { class: "amount" }, s.busy === null ? "–" : percent(s.busy)));
    const cells = { stage: [el("span", { class: "swatch" }), String(s.stage)], engine: [String(s.engine)], device: [s.device], busy: [busy],
      waiting: [s.busy === null ? "–" : number(s.waiting)], weights: [bytes(status.cut[s.stage].weights)], memory: [s.memory ? bytes(s.memory) : "–"] };
    return el("tr", { style: hue(s.stage) }, ...head.map((name) => cell("td", name, ...cells[name])));
  });
  $("#stages").replaceChildren(el("thead", {}, el("tr", {}, ...head.map((name) => cell("th", name, name)))), el("tbody", {}, ...rows));
}

/** Lines over the last looks, the newest at the right. */
function chart(svg, lines, unit) {
  const [width, height, most] = [svg.clientWidth, svg.clientHeight, Math.max(1e-9, ...lines.flat().filter((v) => v !== null))];
  const top = niceAbove(most), x = (i, n) => width - ((n - 1 - i) * width) / (KEPT - 1), y = (v) => height - 1 - (v / top) * (height - 16);
  const shape = (tag, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  };
  const path = (values) => values.map((v, i) => (v === null ? "" : `${i && values[i - 1] !== null ? "L" : "M"}${x(i, values.length)} ${y(v)}`)).join("");
  const label = shape("text", { x: 0, y: y(top) - 4 });
  label.textContent = most > 1e-9 ? number(top) : "";
  const rules = [top, 0].map((v) => shape("line", { x1: 0, x2: width, y1: y(v), y2: y(v) }));
  svg.replaceChildren(...rules, label, ...lines.map((values, i) => shape("path", { d: path(values), class: i ? "second" : "first" })).reverse());
  const now = lines.map((values) => values.at(-1)).map((v) => (v === null ? "none" : number(v)));
  svg.setAttribute("aria-label", `${unit}, now ${now.join(" and ")}`);
}

function niceAbove(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].find((step) => step * power >= value) * power;
}

// ---- the cut

async function draw(status) {
  const answer = await ask("/graph.svg");
  const drawing = answer.status === 200 && new DOMParser().parseFromString(await answer.text(), "image/svg+xml").documentElement;
  $("#cut").replaceChildren(drawing && drawing.tagName === "svg" ? inlined(drawing) : boxes(status.cut));
  light(status);
}

/** The compiler's picture, whose parts have the class `stage-N`. */
function inlined(drawing) {
  const svg = document.importNode(drawing, true);
  svg.querySelectorAll("script, title").forEach((part) => part.remove());
  for (const link of svg.querySelectorAll("a")) link.parentNode.replaceWith(...link.childNodes); // made for tooltips
  return svg;
}

/** Without a picture: a box for each stage. */
function boxes(cut) {
  const made = cut.map((stage, i) => {
    const sends = stage.sends.map((send) => `${send.name} → ${send.stages.join(", ")}`).join("; ");
    return el("div", { class: `box stage stage-${i}`, style: hue(i) }, el("b", {}, `stage ${i}`), el("small", {}, sends || stage.device));
  });
  return el("div", { class: "boxes" }, ...made.flatMap((box, i) => (i ? [el("span", { "aria-hidden": "true" }, "→"), box] : [box])));
}

function light(status) {
  const loads = status.cut.map((_, i) => Math.max(0, ...status.stages.filter((s) => s.stage === i).map((s) => s.busy)));
  loads.forEach((load, i) => {
    for (const part of document.querySelectorAll(`#cut .cluster.stage-${i} > :is(path, polygon)`)) {
      part.style.cssText = `fill: ${HUES[i % HUES.length]}; stroke: ${HUES[i % HUES.length]}; fill-opacity: ${0.06 + 0.5 * load}`;
    }
    for (const part of document.querySelectorAll(`#cut .box.stage-${i}`)) part.style.setProperty("--load", load);
  });
  $("#cut").setAttribute("aria-label", `The cut: ${loads.map((load, i) => `stage ${i} ${percent(load)} busy`).join(", ")}`);
}

// ---- to try it

function curl(status) {
  const inputs = status.inputs.map((t) => {
    const shape = t.shape.map((n) => (n < 0 ? 1 : n)), count = shape.reduce((a, b) => a * b, 1);
    return { name: t.name, datatype: t.datatype, shape, data: Array(Math.min(count, 8)).fill(t.datatype === "BOOL" ? true : 1).concat(count > 8 ? ["…"] : []) };
  });
  const parts = status.outputs.filter((t) => t.shape.length > 2).map((t) => ({ name: t.parameters.part }));
  const asked = parts.length ? { inputs, outputs: parts } : { inputs };
  const token = sessionStorage.getItem(STORED) ? " \\\n  -H 'authorization: Bearer TOKEN'" : "";
  return `curl ${location.origin}/v2/models/${status.name}/infer${token} --json \\\n  '${JSON.stringify(asked).replaceAll('"…"', "…")}'`;
}

async function send(event) {
  event?.preventDefault();
  const text = $("#text").value;
  if (!text || writing) return;
  writing = new AbortController();
  const chat = $("#chat").checked, temperature = $("#temperature").value;
  const body = { stream: true, stream_options: { include_usage: true }, max_tokens: Number($("#tokens").value),
    ...(temperature ? { temperature: Number(temperature) } : {}), ...(chat ? { messages: [{ role: "user", content: text }] } : { prompt: text }) };
  said("", false);
  busy(true);
  $("#answer").textContent = "";
  try {
    await stream(chat ? "/v1/chat/completions" : "/v1/completions", body);
  } catch (error) {
    said(error.name === "AbortError" ? "stopped" : error.message, error.name !== "AbortError");
  } finally {
    busy(false);
    writing = null;
  }
}

async function stream(path, body) {
  const began = performance.now();
  const answer = await ask(path, { method: "POST", body: JSON.stringify(body), signal: writing.signal });
  if (!answer.ok) throw new Error((await answer.json()).error.message);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let left = "", tokens = 0, first = 0;
  for (let { value, done } = await reader.read(); !done; { value, done } = await reader.read()) {
    const events = (left + value).split("\n\n");
    left = events.pop();
    for (const data of events.map((event) => event.slice(6)).filter((data) => data !== "[DONE]")) {
      const { choices: [choice], error } = JSON.parse(data);
      if (error) throw new Error(error.message);
      if (!choice) continue;
      first ||= performance.now();
      tokens++;
      $("#answer").append(choice.text ?? choice.delta.content ?? "");
      const passed = performance.now() - first;
      const rate = passed > 100 ? ` · ${number((1000 * (tokens - 1)) / passed)} a second` : "";
      said(`${tokens} ${tokens > 1 ? "tokens" : "token"} · first after ${seconds((first - began) / 1000)}${rate}`, false);
    }
  }
}

function said(text, bad) {
  $("#said").textContent = text;
  $("#said").classList.toggle("bad", bad);
}

function busy(on) {
  $("#answer").hidden = false;
  $("#answer").classList.toggle("writing", on);
  $("#stop").hidden = !on;
  $("#send").disabled = on;
}

$("#token").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(STORED, $("#token-field").value);
});
$("#prompt").addEventListener("submit", send);
$("#stop").addEventListener("click", () => writing?.abort());
$("#copy").addEventListener("click", () => navigator.clipboard?.writeText($("#curl").textContent));
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") writing?.abort();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && event.target === $("#text")) send();
});
look();
