// Choose a word, a layer and a head: how much of each phoneme's weight lies on each letter.
// Word, layer and head live in the model, and so do all weights, as whole percents: bytes,
// deflated, in base64. In each head's table a row is a phoneme, the last one the stop token.

const SVG = "http://www.w3.org/2000/svg";

function element(tag, attributes = {}, text = "") {
  const svg = ["svg", "rect"].includes(tag);
  const node = svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== "") node.textContent = text;
  return node;
}

async function inflate(text) {
  const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// For each word: what is said and listed, and `of(layer, head)`, which gives the rows of a table.
async function unpack({ words, layers, heads, percents }) {
  const numbers = await inflate(percents);
  const found = new Map();
  let at = 0;
  for (const [word, said, listed] of words) {
    const sounds = said.split(" ");
    const [start, rows, columns] = [at, sounds.length + 1, word.length];
    const of = (layer, head) =>
      Array.from({ length: rows }, (_, row) => {
        const first = start + ((layer * heads + head) * rows + row) * columns;
        return [...numbers.subarray(first, first + columns)];
      });
    found.set(word, { sounds, listed, of });
    at += layers * heads * rows * columns;
  }
  return found;
}

async function render({ model, el }) {
  const table = model.get("table");
  const words = await unpack(table);
  const root = element("div", { class: "explorable heads" });
  root.innerHTML = `
    <p><label>Word <select></select></label> <span class="said" role="status"></span></p>
    <div class="both">
      <fieldset><legend>Choose a layer and a head</legend>
        <div class="grid" style="--heads: ${table.heads}"></div></fieldset>
      <div class="chosen"><table><caption></caption>
        <thead><tr></tr></thead><tbody></tbody></table></div>
    </div>
    <p class="most" role="status"></p>`;
  el.replaceChildren(root);
  const [select, said, grid, caption, head, body, most] = [
    "select", ".said", ".grid", "caption", "thead tr", "tbody", ".most",
  ].map((s) => root.querySelector(s));
  for (const word of words.keys()) select.append(element("option", {}, word));
  const group = `head-${Math.random().toString(36).slice(2)}`;

  function change(values) {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
    draw();
  }

  grid.append(element("span"));
  for (let h = 0; h < table.heads; h++) grid.append(element("span", { class: "top" }, `head ${h}`));
  for (let l = 0; l < table.layers; l++) {
    grid.append(element("span", { class: "left" }, `layer ${l}`));
    for (let h = 0; h < table.heads; h++) {
      const label = element("label");
      const radio = element("input", {
        type: "radio", name: group, value: `${l} ${h}`, "aria-label": `layer ${l}, head ${h}`,
      });
      radio.addEventListener("change", () => change({ layer: l, head: h }));
      const picture = element("svg", { preserveAspectRatio: "none", "aria-hidden": "true" });
      label.append(radio, picture);
      grid.append(label);
    }
  }

  let drawn = null; // the word of the small pictures
  function preview(word, { sounds, of }) {
    if (word === drawn) return;
    drawn = word;
    for (const label of grid.querySelectorAll("label")) {
      const picture = label.querySelector("svg");
      picture.setAttribute("viewBox", `0 0 ${word.length} ${sounds.length + 1}`);
      picture.replaceChildren();
      of(...label.querySelector("input").value.split(" ").map(Number)).forEach((row, y) =>
        row.forEach((percent, x) => {
          if (percent === 0) return;
          const place = { x, y, width: 1, height: 1, "fill-opacity": percent / 100 };
          picture.append(element("rect", place));
        }),
      );
    }
  }

  function draw() {
    const [word, layer, chosen] = ["word", "layer", "head"].map((name) => model.get(name));
    const entry = words.get(word);
    select.value = word;
    preview(word, entry);
    for (const radio of grid.querySelectorAll("input"))
      radio.checked = radio.value === `${layer} ${chosen}`;
    said.textContent =
      `is read as ${entry.sounds.join(" ")}` +
      (entry.listed ? `; the dictionary has ${entry.listed}.` : ", as the dictionary has it.");
    caption.textContent =
      `Layer ${layer}, head ${chosen}: percent of each sound's weight (rows, blue) ` +
      `on each letter (columns, red)`;
    head.replaceChildren(element("td"));
    for (const letter of word) head.append(element("th", { scope: "col" }, letter));
    body.replaceChildren();
    const looks = [];
    entry.of(layer, chosen).forEach((row, i) => {
      const line = element("tr");
      const sound = entry.sounds[i] ?? "stop";
      line.append(element("th", { scope: "row" }, sound));
      looks.push(`${sound} at ${word[row.indexOf(Math.max(...row))]}`);
      for (const percent of row) {
        const cell = element("td", { class: percent ? "" : "none" }, `${percent}`);
        const share = 0.45 * percent; // of the colour, so that the number stays legible
        cell.style.background = `color-mix(in srgb, var(--output) ${share}%, var(--surface))`;
        line.append(cell);
      }
      body.append(line);
    });
    most.textContent = `Layer ${layer}, head ${chosen} looks most: ${looks.join(", ")}.`;
  }

  select.addEventListener("change", () => change({ word: select.value }));
  const names = ["word", "layer", "head"];
  for (const name of names) model.on(`change:${name}`, draw);
  draw();
  return () => names.forEach((name) => model.off(`change:${name}`, draw));
}

export default { render };
