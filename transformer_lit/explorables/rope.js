// Move a query and a key along the text: their arrows turn, one dial per pair of numbers.
// The vectors and the places live in the model; all else is computed here, as
// transformer_lit.relative_positions.RoPE does (a test compares the numbers).

const FURTHEST = 60;
const REACH = 2.2; // a dial shows -REACH .. REACH
const SVG = "http://www.w3.org/2000/svg";

export function turn(vector, place) {
  const turned = [];
  for (let i = 0; i < vector.length; i += 2) {
    const angle = place * 10000 ** (-i / vector.length);
    const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
    const [a, b] = [vector[i], vector[i + 1]];
    turned.push([a * cos - b * sin, a * sin + b * cos]);
  }
  return turned;
}

function element(tag, attributes = {}, text = "") {
  const svg = ["svg", "line", "circle", "text"].includes(tag);
  const node = svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== "") node.textContent = text;
  return node;
}

function render({ model, el }) {
  const root = element("div", { class: "explorable rope" });
  root.innerHTML = `
    <p class="how">Move the query (blue, round tip) and the key (red, square tip) along the text.
      Each dial is one pair of their numbers; the first turns fastest.</p>
    <div class="controls">
      <label>Place of the query <input type="range" class="q" min="0" max="${FURTHEST}" step="1">
        <output></output></label>
      <label>Place of the key <input type="range" class="k" min="0" max="${FURTHEST}" step="1">
        <output></output></label>
      <label class="both"><input type="checkbox"> Move both together</label>
    </div>
    <div class="dials"></div>
    <p class="sum" role="status"></p>`;
  el.replaceChildren(root);
  const sliders = { query: root.querySelector(".q"), key: root.querySelector(".k") };
  const together = root.querySelector("input[type=checkbox]");
  const dials = root.querySelector(".dials");

  function place(name, value) {
    const other = name === "query" ? "key" : "query";
    const places = { [name]: value };
    if (together.checked) {
      const lead = model.get(`${other}_place`) - model.get(`${name}_place`);
      // Neither may leave the text: both stop where the first of them would.
      const low = Math.max(0, -lead), high = Math.min(FURTHEST, FURTHEST - lead);
      places[name] = Math.min(high, Math.max(low, value));
      places[other] = places[name] + lead;
    }
    for (const [who, where] of Object.entries(places)) model.set(`${who}_place`, where);
    model.save_changes();
    draw();
  }

  function draw() {
    const [query, key] = [model.get("query"), model.get("key")];
    if (query.length !== key.length) return; // the other one is on its way
    const at = { query: model.get("query_place"), key: model.get("key_place") };
    for (const [name, slider] of Object.entries(sliders)) {
      slider.value = at[name];
      slider.nextElementSibling.textContent = at[name];
    }
    const [q, k] = [turn(query, at.query), turn(key, at.key)];
    const shares = q.map((a, i) => (a[0] * k[i][0] + a[1] * k[i][1]) / Math.sqrt(query.length));
    dials.replaceChildren(...shares.map((share, i) => {
      const dial = element("div", { class: "dial" });
      const box = `${-REACH} ${-REACH} ${2 * REACH} ${2 * REACH}`;
      const svg = element("svg", { viewBox: box, "aria-hidden": "true" });
      svg.append(element("circle", { r: 2, class: "rim" }));
      for (const [name, [x, y]] of [["key", k[i]], ["query", q[i]]]) {
        svg.append(element("line", { x1: 0, y1: 0, x2: x, y2: -y, class: `arrow ${name}` }));
        const square = { x: x - 0.13, y: -y - 0.13, width: 0.26, height: 0.26, class: name };
        const tip = name === "query"
          ? element("circle", { cx: x, cy: -y, r: 0.15, class: name })
          : document.createElementNS(SVG, "rect");
        if (name === "key") {
          for (const [a, value] of Object.entries(square)) tip.setAttribute(a, value);
        }
        svg.append(tip);
      }
      const step = 10000 ** ((-2 * i) / query.length);
      const label = element("p", {}, `Pair ${i + 1}: turns ${step.toPrecision(2)} a step, adds `);
      label.append(element("span", { class: "share" }, share.toFixed(3)));
      dial.append(svg, label);
      return dial;
    }));
    const score = shares.reduce((a, b) => a + b).toFixed(3);
    const steps = at.key - at.query;
    root.querySelector(".sum").textContent = `Key minus query: ${steps} steps. Score: ${score}`;
  }

  for (const [name, slider] of Object.entries(sliders)) {
    slider.addEventListener("input", () => place(name, Number(slider.value)));
  }
  const names = ["query", "key", "query_place", "key_place"];
  for (const name of names) model.on(`change:${name}`, draw);
  draw();
  return () => names.forEach((name) => model.off(`change:${name}`, draw));
}

export default { render };
