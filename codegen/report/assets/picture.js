"use strict";
// The graph as Graphviz laid it out: coloured by stage, moved and zoomed, each box opened by mouse or keyboard.

const TALLEST = 1700; // pixels; a taller graph is moved about in its frame
const SMALLEST = 0.8; // of its natural size, for the sake of its words
const LARGEST = 1.1;
const MARGIN = 12;

function showPicture(data) {
  const frame = document.querySelector("#picture");
  const boxes = data.picture ? inline(frame, data) : listed(frame, data);
  document.querySelector("#graph-lead").textContent = data.picture
    ? "Boxes are modules, frames are stages. Open a box for its operators and its code. Drag to move, Ctrl + wheel to zoom."
    : "The graph is not drawn, as Graphviz's program dot was not found or took too long. " +
      "Its parts are listed; to see it drawn, install Graphviz and compile again.";
  document.querySelector("#zoom").hidden = !data.picture;
  const view = data.picture ? zoomable(frame) : { enter() {}, leave() {}, reveal() {} };
  const state = { open: null };
  const close = () => {
    if (state.open === null) return;
    document.querySelector("#panel").hidden = true;
    boxes[state.open].classList.remove("open");
    boxes[state.open].setAttribute("aria-expanded", "false");
    boxes[state.open].focus();
    state.open = null;
    view.leave();
  };
  const open = (i) => {
    const narrower = state.open === null;
    if (!narrower) boxes[state.open].classList.remove("open");
    state.open = i;
    boxes[i].classList.add("open");
    boxes[i].setAttribute("aria-expanded", "true");
    openPanel(data, data.parts[i], close);
    if (narrower) view.enter(boxes[i]);
    view.reveal(boxes[i]);
  };
  boxes.forEach((box, i) => {
    box.addEventListener("click", () => open(i));
    box.addEventListener("keydown", (event) => {
      const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
      if (state.open === i && event.key === "Enter") document.querySelector("#panel").focus();
      else if (event.key === "Enter" || event.key === " ") open(i);
      else if (step) boxes[(i + step + boxes.length) % boxes.length].focus();
      else return;
      event.preventDefault();
    });
  });
  document.addEventListener("keydown", (event) => event.key === "Escape" && close());
}

/** The drawing, as elements of the page; returns its boxes, in the order of the parts. */
function inline(frame, data) {
  const svg = document.importNode(new DOMParser().parseFromString(data.picture, "image/svg+xml").documentElement, true);
  for (const link of svg.querySelectorAll("a")) link.parentNode.replaceWith(...link.childNodes); // made for tooltips
  svg.querySelectorAll("g.edge > title, g.cluster > title, g.graph > title, g.heading > title").forEach((title) => title.remove());
  svg.setAttribute("role", "presentation");
  frame.replaceChildren(svg);
  return data.parts.map((part, i) => {
    const box = svg.getElementById(`box-${i}`);
    box.querySelector("title")?.remove();
    box.setAttribute("role", "button");
    box.setAttribute("tabindex", "0");
    box.setAttribute("aria-expanded", "false");
    box.setAttribute("aria-controls", "panel");
    const words = [...box.querySelectorAll("text")].map((text) => text.textContent.trim());
    box.setAttribute("aria-label", `${words.join(", ")}, stage ${part.stage}`);
    return box;
  });
}

/** Without a drawing: a row of buttons for each stage. */
function listed(frame, data) {
  const boxes = data.parts.map((part) => el("button", { type: "button", class: "part", "aria-expanded": "false",
    style: `background: ${colour.fill(part.stage)}; border-color: ${colour.line(part.stage)}` }, part.title || part.kind));
  const rows = data.summary.stages.map((s) =>
    el("p", { class: "row" }, el("b", {}, swatch(s.stage), `stage ${s.stage}`), ...boxes.filter((_, i) => data.parts[i].stage === s.stage)));
  frame.replaceChildren(...rows);
  frame.classList.add("listed");
  return boxes;
}

/** Let a person move and zoom the drawing in its frame. */
function zoomable(frame) {
  const svg = d3.select(frame).select("svg");
  const content = svg.select("g.graph").attr("transform", null);
  const box = content.node().getBBox();
  const scale = Math.min(LARGEST, (frame.clientWidth - 2 * MARGIN) / box.width, Math.max(SMALLEST, TALLEST / box.height));
  frame.style.height = `${Math.min(TALLEST, Math.max(360, box.height * scale + 2 * MARGIN))}px`;
  svg.attr("width", "100%").attr("height", "100%").attr("viewBox", null);
  const zoom = d3.zoom()
    .scaleExtent([0.05, 6])
    .filter((event) => (event.type === "wheel" ? event.ctrlKey || event.metaKey : !event.button))
    .on("zoom", ({ transform }) => content.attr("transform", transform));
  svg.call(zoom).on("dblclick.zoom", null);
  const fit = (width, height, most) => {
    const k = Math.min(most, (width - 2 * MARGIN) / box.width, (height - 2 * MARGIN) / box.height);
    return d3.zoomIdentity.translate((width - k * box.width) / 2 - k * box.x, MARGIN - k * box.y).scale(k);
  };
  svg.call(zoom.transform, fit(frame.clientWidth, box.height > TALLEST / scale ? Infinity : frame.clientHeight, scale));
  const actions = {
    in: () => svg.call(zoom.scaleBy, 1.4),
    out: () => svg.call(zoom.scaleBy, 1 / 1.4),
    fit: () => svg.call(zoom.transform, fit(frame.clientWidth, Math.min(frame.clientHeight, window.innerHeight), LARGEST)),
  };
  document.querySelectorAll("[data-zoom]").forEach((button) => button.addEventListener("click", () => actions[button.dataset.zoom]()));
  frame.addEventListener("keydown", (event) => actions[{ "+": "in", "=": "in", "-": "out", 0: "fit" }[event.key]]?.());
  const move = (pixels) => svg.call(zoom.translateBy, pixels / d3.zoomTransform(svg.node()).k, 0);
  const rectangles = (element) => [frame, element].map((e) => e.getBoundingClientRect());
  let before = d3.zoomIdentity;
  return {
    /** The panel has made the frame narrower: fit the drawing into it, so far as its words stay readable. */
    enter(element) {
      before = d3.zoomTransform(svg.node());
      const [within, it] = rectangles(content.node()), anchor = element.getBoundingClientRect();
      const k = before.k * Math.min(1, (within.width - 2 * MARGIN) / it.width);
      svg.call(zoom.scaleTo, Math.max(k, Math.min(SMALLEST, before.k)), [0, (anchor.top + anchor.bottom) / 2 - within.top]);
      const now = content.node().getBoundingClientRect();
      if (now.width <= within.width) move((within.left + within.right - now.left - now.right) / 2);
    },
    leave: () => svg.call(zoom.transform, before),
    /** Move the drawing sideways until an element is inside the frame. */
    reveal(element) {
      const [within, it] = rectangles(element);
      const right = it.right + 4 * MARGIN - within.right, left = it.left - 4 * MARGIN - within.left;
      if (right > 0) move(-right);
      else if (left < 0) move(-left);
    },
  };
}
