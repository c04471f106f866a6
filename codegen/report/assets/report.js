"use strict";
// Puts the page together from the data in it.

/** Colours of the stages, for a light page and for a dark one. */
function showColours(colours) {
  const variables = (page) =>
    `:root { ${colours.map((c, i) => Object.entries(c[page]).map(([name, value]) => `--${name}-${i}: ${value};`).join(" ")).join(" ")} }`;
  const rules = colours.map((_, i) => `
    .cluster.stage-${i} > :is(path, polygon) { fill: var(--fill-${i}); stroke: var(--line-${i}); }
    .box.stage-${i} > :is(path, polygon) { stroke: var(--line-${i}); }
    .cut.stage-${i} > path { stroke: var(--line-${i}); }
    .cut.stage-${i} > :is(polygon, ellipse) { stroke: var(--line-${i}); fill: var(--line-${i}); }
    .cut.stage-${i} > text { fill: var(--line-${i}); }`);
  const sheet = `${variables("light")} @media (prefers-color-scheme: dark) { ${variables("dark")} } ${rules.join("")}`;
  document.head.append(el("style", {}, sheet));
}

/** The data of the page, with operators as objects. */
function readData() {
  const data = JSON.parse(document.querySelector("#data").textContent);
  const operator = (row) => Object.fromEntries(data.columns.map((name, i) => [name, row[i]]));
  for (const part of data.parts) for (const group of part.groups) group.operators = group.operators.map(operator);
  return data;
}

/** The libraries are packed, as they are most of the page. */
async function unpackLibraries() {
  for (const packed of document.querySelectorAll("script.library")) {
    const bytes = Uint8Array.from(atob(packed.textContent), (letter) => letter.charCodeAt(0));
    const plain = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    document.head.append(el("script", {}, await new Response(plain).text()));
  }
}

unpackLibraries().then(() => {
  const data = readData();
  showColours(data.colours);
  showHeading(data);
  showFigures(data);
  showStages(data);
  showDecoding(data);
  showFlow(data);
  showPicture(data);
  showTime(data);
  showMemory(data);
  showPasses(data);
  document.documentElement.setAttribute("data-ready", "");
});
