// Drag the words of the plane, or type their numbers: scores, weights and mixture follow.
// Words, vectors, query and temperature live in the model; all else is computed here, as
// transformer_lit.attention.explicit_attention does (a test compares the numbers).

const REACH = 3; // the plane shows -REACH .. REACH
const SVG = "http://www.w3.org/2000/svg";

export function attend(vectors, query, temperature) {
  const scores = vectors.map(
    (key) => (key[0] * vectors[query][0] + key[1] * vectors[query][1]) / Math.SQRT2,
  );
  const top = Math.max(...scores);
  const exps = scores.map((score) => Math.exp((score - top) / temperature));
  const sum = exps.reduce((a, b) => a + b);
  const weights = exps.map((e) => e / sum);
  const output = [0, 1].map((i) => vectors.reduce((s, v, j) => s + weights[j] * v[i], 0));
  return { scores, weights, output };
}

function element(tag, attributes = {}, text = "") {
  const svg = ["svg", "line", "circle", "text", "g"].includes(tag);
  const node = svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== "") node.textContent = text;
  return node;
}

const clamp = (x) => Math.min(REACH, Math.max(-REACH, Number.isFinite(x) ? x : 0));

function render({ model, el }) {
  const root = element("div", { class: "explorable attention" });
  root.innerHTML = `
    <svg class="plane" viewBox="-3.3 -3.3 6.6 6.6" aria-hidden="true"></svg>
    <div class="side">
      <table>
        <caption>Choose the word that asks (blue). Edit the vectors here, or drag them in the plane.
          The purple point is the mixture that it gets.</caption>
        <thead><tr>
          <th scope="col">Word</th><th scope="col">x</th><th scope="col">y</th>
          <th scope="col">Score</th><th scope="col">Weight</th>
        </tr></thead>
        <tbody></tbody>
      </table>
      <label class="cold">Temperature <input type="range" min="0.05" max="3" step="0.05">
        <output></output></label>
      <p class="buttons"><button type="button" class="add">Add a word</button>
        <button type="button" class="remove">Remove the last</button></p>
      <p class="mixture" role="status"></p>
    </div>`;
  el.replaceChildren(root);
  const [plane, body, slider, mixture, add, remove] = [
    "svg", "tbody", ".cold input", ".mixture", ".add", ".remove",
  ].map((s) => root.querySelector(s));
  const group = `query-${Math.random().toString(36).slice(2)}`;

  function change(values) {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
    draw();
  }

  function move(index, place) {
    const round = (x) => Math.round(clamp(x) * 100) / 100;
    change({
      vectors: model.get("vectors").map((v, j) => (j === index ? place.map(round) : v)),
    });
  }

  // The rows are built anew only when the number of words changes, so that typing keeps its focus.
  function build() {
    body.replaceChildren();
    model.get("words").forEach((word, j) => {
      const row = element("tr");
      const name = element("th", { scope: "row" });
      const label = element("label");
      const radio = element("input", { type: "radio", name: group });
      radio.addEventListener("change", () => change({ query: j }));
      label.append(radio, element("span", {}, word));
      name.append(label);
      row.append(name);
      [0, 1].forEach((i) => {
        const cell = element("td");
        const input = element("input", {
          type: "number", step: 0.1, min: -REACH, max: REACH, "aria-label": `${word}, ${"xy"[i]}`,
        });
        input.addEventListener("input", () => {
          if (input.value === "") return; // half-typed
          const place = [...model.get("vectors")[j]];
          place[i] = Number(input.value);
          move(j, place);
        });
        input.addEventListener("blur", draw);
        cell.append(input);
        row.append(cell);
      });
      const weight = element("td", { class: "weight" });
      weight.append(element("span", { class: "bar" }), element("span", { class: "number" }));
      row.append(element("td", { class: "score" }), weight);
      body.append(row);
    });
  }

  function draw() {
    const [words, vectors, query, temperature] = ["words", "vectors", "query", "temperature"].map(
      (name) => model.get(name),
    );
    // Values that belong together arrive one by one: wait for the last of them.
    if (words.length !== vectors.length || query >= words.length) return;
    if (body.children.length !== words.length) build();
    const { scores, weights, output } = attend(vectors, query, temperature);
    [...body.children].forEach((row, j) => {
      row.querySelector("input[type=radio]").checked = j === query;
      row.querySelectorAll("input[type=number]").forEach((input, i) => {
        if (input !== document.activeElement) input.value = vectors[j][i];
      });
      row.querySelector(".score").textContent = scores[j].toFixed(3);
      row.querySelector(".number").textContent = weights[j].toFixed(3);
      row.querySelector(".bar").style.width = `${100 * weights[j]}%`;
    });
    slider.value = temperature;
    root.querySelector("output").textContent = temperature.toFixed(2);
    add.disabled = words.length >= 6;
    remove.disabled = words.length <= 3;
    const sum = words.map((word, j) => `${weights[j].toFixed(2)} ${word}`).join(" + ");
    const [x, y] = output.map((value) => value.toFixed(3));
    mixture.textContent = `Output for ${words[query]}: ${sum} = (${x}, ${y})`;

    plane.replaceChildren(
      element("line", { x1: -REACH, x2: REACH, y1: 0, y2: 0, class: "axis" }),
      element("line", { y1: -REACH, y2: REACH, x1: 0, x2: 0, class: "axis" }),
    );
    vectors.forEach(([vx, vy], j) => {
      const role = j === query ? "query" : "key";
      plane.append(
        element("line", { x1: 0, y1: 0, x2: vx, y2: -vy, class: `arrow ${role}` }),
        element("line", {
          x1: vx, y1: -vy, x2: output[0], y2: -output[1], class: "pull",
          "stroke-opacity": weights[j],
        }),
      );
      const dot = element("circle", { cx: vx, cy: -vy, r: 0.16, class: `word ${role}` });
      dot.dataset.index = j;
      plane.append(dot, element("text", { x: vx, y: -vy - 0.26, class: "name" }, words[j]));
    });
    const mark = { cx: output[0], cy: -output[1], r: 0.12, class: "output" };
    plane.append(element("circle", mark));
  }

  let held = null;
  plane.addEventListener("pointerdown", (event) => {
    if (event.target.dataset.index === undefined) return;
    held = Number(event.target.dataset.index);
    plane.setPointerCapture(event.pointerId);
    event.preventDefault();
  });
  plane.addEventListener("pointermove", (event) => {
    if (held === null) return;
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(
      plane.getScreenCTM().inverse(),
    );
    move(held, [at.x, -at.y]);
  });
  for (const end of ["pointerup", "pointercancel"]) {
    plane.addEventListener(end, () => (held = null));
  }
  slider.addEventListener("input", () => change({ temperature: Number(slider.value) }));
  add.addEventListener("click", () => {
    const words = model.get("words");
    const turn = 2.4 * words.length; // spread the new ones around the plane
    const place = [1.5 * Math.cos(turn), 1.5 * Math.sin(turn)].map((x) => Math.round(x * 10) / 10);
    change({
      words: [...words, `new ${words.length + 1}`],
      vectors: [...model.get("vectors"), place],
    });
    if (add.disabled) remove.focus(); // the keyboard stays here
  });
  remove.addEventListener("click", () => {
    const vectors = model.get("vectors").slice(0, -1);
    change({
      words: model.get("words").slice(0, -1),
      vectors,
      query: Math.min(model.get("query"), vectors.length - 1),
    });
    if (remove.disabled) add.focus();
  });
  const names = ["words", "vectors", "query", "temperature"];
  for (const name of names) model.on(`change:${name}`, draw);
  draw();
  return () => names.forEach((name) => model.off(`change:${name}`, draw));
}

export default { render };
