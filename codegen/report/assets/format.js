"use strict";
// Quantities as people read them, and elements made of plain text.

const format = {
  bytes(n) {
    for (const unit of ["B", "KiB", "MiB", "GiB"]) {
      if (Math.abs(n) < 1024) return `${n.toFixed(unit === "B" ? 0 : 1)} ${unit}`;
      n /= 1024;
    }
    return `${n.toFixed(1)} TiB`;
  },
  count(n) {
    for (const unit of ["", "k", "M", "G"]) {
      if (Math.abs(n) < 1000) return `${n.toFixed(unit ? 1 : 0)} ${unit}`;
      n /= 1000;
    }
    return `${n.toFixed(1)} T`;
  },
  seconds(s) {
    const { unit, scale } = format.timescale(s);
    return `${d3.format(".3~r")(s / scale)} ${unit}`;
  },
  timescale(s) {
    const scales = [["s", 1], ["ms", 1e-3], ["µs", 1e-6]];
    const [unit, scale] = scales.find(([, scale]) => Math.abs(s) >= scale) ?? ["ns", 1e-9];
    return { unit, scale };
  },
  /** `20 batches an hour`, of seconds a batch. */
  rate(s) {
    const [span, seconds] = [["second", 1], ["minute", 60]].find(([, seconds]) => s <= seconds) ?? ["hour", 3600];
    const rate = seconds / s;
    return `${d3.format(rate < 1000 ? ".3~r" : ".3~s")(rate)} batches ${span === "hour" ? "an" : "a"} ${span}`;
  },
  percent: (share) => d3.format(".0%")(share),
  plural: (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`,
};

/** An element with attributes; children are elements or text, never markup. */
function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === false) continue;
    if (key === "style") made.style.cssText = value;
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== undefined && child !== null && child !== ""));
  return made;
}

/** The colours of a stage, which follow the page from light to dark. */
const colour = {
  fill: (stage) => `var(--fill-${stage})`,
  line: (stage) => `var(--line-${stage})`,
  bar: (stage) => `var(--bar-${stage})`,
};

function swatch(stage) {
  return el("span", { class: "swatch", style: `background: ${colour.bar(stage)}; border-color: ${colour.line(stage)}` });
}
