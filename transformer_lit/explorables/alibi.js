// Choose how many heads there are and one of them: its slope, and its weights over equal scores.
// Heads and head live in the model; all else is computed here, as
// transformer_lit.relative_positions.ALiBi does (a test compares the numbers).

const KEYS = 32;
const DROP = 8; // how far down the lines are drawn
const SVG = "http://www.w3.org/2000/svg";

export function slopes(n) {
  const below = 2 ** Math.floor(Math.log2(n));
  const found = [];
  for (let i = 1; i <= below; i++) found.push(2 ** ((-8 * i) / below));
  for (let i = 1; found.length < n; i += 2) found.push(2 ** ((-4 * i) / below));
  return found;
}

export function weights(slope) {
  const exps = Array.from({ length: KEYS }, (_, distance) => Math.exp(-slope * distance));
  const sum = exps.reduce((a, b) => a + b);
  return exps.map((e) => e / sum);
}

function element(tag, attributes = {}, text = "") {
  const svg = ["svg", "line", "rect", "polyline"].includes(tag);
  const node = svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== "") node.textContent = text;
  return node;
}

function render({ model, el }) {
  const root = element("div", { class: "explorable alibi" });
  root.innerHTML = `
    <p>Above, what each head takes off a score, from the query at the left to 31 steps back at the
      right. Below, the weights of the chosen head if all scores were equal.</p>
    <div class="controls">
      <label>Heads <input type="range" class="n" min="1" max="16" step="1"> <output></output></label>
      <label>Head <input type="range" class="head" min="0" step="1"> <output></output></label>
    </div>
    <svg class="lines" viewBox="0 0 32 ${DROP}" preserveAspectRatio="none" aria-hidden="true"></svg>
    <svg class="bars" viewBox="0 0 32 6" preserveAspectRatio="none" aria-hidden="true"></svg>
    <p class="all">Slopes: <span class="slopes"></span></p>
    <p class="told" role="status"></p>`;
  el.replaceChildren(root);
  const [n, chosen] = [root.querySelector(".n"), root.querySelector(".head")];

  function draw() {
    const [heads, head] = [model.get("n_heads"), model.get("head")];
    if (head >= heads) return; // the other one is on its way
    [n.value, chosen.max, chosen.value] = [heads, heads - 1, head];
    n.nextElementSibling.textContent = heads;
    chosen.nextElementSibling.textContent = head;
    const all = slopes(heads);
    const found = weights(all[head]);
    root.querySelector(".lines").replaceChildren(
      ...all.map((slope, i) => element("line", {
        x1: 0.5, y1: 0, x2: KEYS - 0.5, y2: slope * (KEYS - 1),
        class: i === head ? "line chosen" : "line",
      })),
    );
    const top = Math.max(...found);
    root.querySelector(".bars").replaceChildren(
      ...found.map((weight, i) => {
        const height = (6 * weight) / top;
        return element("rect", { x: i + 0.1, y: 6 - height, width: 0.8, height });
      }),
    );
    root.querySelector(".slopes").replaceChildren(
      ...all.map((slope, i) => {
        const kind = i === head ? "slope chosen" : "slope";
        return element("span", { class: kind }, slope.toPrecision(3));
      }),
    );
    let sum = 0;
    const half = 1 + found.findIndex((weight) => (sum += weight) >= 0.5);
    root.querySelector(".told").textContent =
      `Head ${head} of ${heads}: own place ${found[0].toFixed(3)}, 31 steps back ` +
      `${found[KEYS - 1].toExponential(1)}. Half of the weight lies on the nearest ${half}.`;
  }

  function change(heads, head) {
    // The smaller head first: no moment in which the chosen head is not there.
    const kept = Math.min(head, heads - 1);
    const order = kept < model.get("head") ? ["head", "n_heads"] : ["n_heads", "head"];
    const values = { n_heads: heads, head: kept };
    for (const name of order) model.set(name, values[name]);
    model.save_changes();
    draw();
  }

  n.addEventListener("input", () => change(Number(n.value), model.get("head")));
  chosen.addEventListener("input", () => change(model.get("n_heads"), Number(chosen.value)));
  const names = ["n_heads", "head"];
  for (const name of names) model.on(`change:${name}`, draw);
  draw();
  return () => names.forEach((name) => model.off(`change:${name}`, draw));
}

export default { render };
