// Paint a mask with the mouse, a finger or the keyboard: scores and weights follow.
// Words, scores, mask, length and window live in the model; the weights are computed here, as
// transformer_lit.attention.softmax_weights does (a test compares the numbers).

export function weigh(scores, mask) {
  return scores.map((row, i) => {
    const top = Math.max(...row.filter((_, j) => mask[i][j]));
    const exps = row.map((score, j) => (mask[i][j] ? Math.exp(score - top) : 0));
    const sum = exps.reduce((a, b) => a + b);
    return exps.map((e) => (sum > 0 ? e / sum : 0)); // nothing to attend to: zeros
  });
}

const PRESETS = {
  none: () => true,
  causal: (i, j) => j <= i,
  padding: (i, j, model) => j < model.get("length"),
  local: (i, j, model) => Math.abs(i - j) <= model.get("window"),
};

function element(tag, attributes = {}, text = "") {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== "") node.textContent = text;
  return node;
}

function render({ model, el }) {
  const root = element("div", { class: "explorable masking" });
  root.innerHTML = `
    <p class="buttons" role="group" aria-label="Masks">
      <button type="button" data-preset="none">None: all may be seen</button>
      <button type="button" data-preset="causal">&amp; causal</button>
      <button type="button" data-preset="padding">&amp; padding</button>
      <button type="button" data-preset="local">&amp; local</button></p>
    <p>In each cell: the weight, and below it the score that went into the softmax. Click or drag
      to hide and show. With the keyboard, arrows move and the space bar switches.</p>
    <table>
      <caption>Rows (blue) look at columns (red)</caption>
      <thead><tr></tr></thead>
      <tbody></tbody>
    </table>
    <p class="said" role="status"></p>`;
  el.replaceChildren(root);
  const [head, body, said] = ["thead tr", "tbody", ".said"].map((s) => root.querySelector(s));
  let current = [0, 0]; // the one cell that the Tab key reaches
  let paints = null; // what the pointer that is down paints: true, false
  let painted = false; // so that the click that follows does not switch the cell back

  const cell = (i, j) => body.children[i].querySelectorAll("button")[j];

  function change(mask) {
    model.set("mask", mask);
    model.save_changes();
    draw();
  }

  function set(i, j, may) {
    const mask = model.get("mask");
    if (mask[i][j] === may) return;
    change(mask.map((row, a) => row.map((old, b) => (a === i && b === j ? may : old))));
  }

  function go(i, j, focus = true) {
    cell(...current).tabIndex = -1;
    current = [i, j];
    cell(i, j).tabIndex = 0;
    if (focus) cell(i, j).focus();
  }

  function build(words) {
    current = [0, 0];
    head.replaceChildren(element("td"));
    words.forEach((word) => head.append(element("th", { scope: "col", class: "key" }, word)));
    head.append(element("th", { scope: "col" }, "Sum"));
    body.replaceChildren();
    words.forEach((word, i) => {
      const row = element("tr");
      row.append(element("th", { scope: "row", class: "query" }, word));
      words.forEach((_, j) => {
        const data = element("td", { class: "cell" });
        const button = element("button", { type: "button", tabindex: i + j === 0 ? 0 : -1 });
        button.dataset.at = `${i} ${j}`;
        button.append(
          element("span", { class: "bar" }),
          element("span", { class: "who" }),
          element("span", { class: "number" }),
          element("span", { class: "score" }),
        );
        data.append(button);
        row.append(data);
      });
      row.append(element("td", { class: "sum" }));
      body.append(row);
    });
  }

  function draw() {
    const [words, scores, mask] = ["words", "scores", "mask"].map((name) => model.get(name));
    // Values that belong together arrive one by one: wait for the last of them.
    if (scores.length !== words.length || mask.length !== words.length) return;
    if (body.children.length !== words.length) build(words);
    root.querySelector("[data-preset=local]").textContent = `& local, ±${model.get("window")}`;
    const weights = weigh(scores, mask);
    weights.forEach((row, i) => {
      row.forEach((weight, j) => {
        const button = cell(i, j);
        const may = mask[i][j];
        button.setAttribute("aria-pressed", may);
        const who = `${words[i]} ${may ? "may" : "may not"} see ${words[j]}, weight and score `;
        button.querySelector(".who").textContent = who;
        button.querySelector(".bar").style.width = `${100 * weight}%`;
        button.querySelector(".number").textContent = weight.toFixed(3);
        button.querySelector(".score").textContent = may ? scores[i][j].toFixed(2) : "−∞";
      });
      const sum = row.reduce((a, b) => a + b);
      body.children[i].querySelector(".sum").textContent = sum.toFixed(3);
    });
    const empty = words.filter((_, i) => !mask[i].includes(true));
    const seen = mask.flat().filter(Boolean).length;
    said.textContent = `${seen} of ${mask.length ** 2} cells may be seen. ` + (empty.length
      ? `Nothing to attend to, so weights of zero: ${empty.join(", ")}.`
      : "Every word has something to attend to, and its weights sum to one.");
  }

  const under = (event) =>
    document.elementFromPoint(event.clientX, event.clientY)?.closest(".masking button[data-at]");
  const place = (button) => button.dataset.at.split(" ").map(Number);

  body.addEventListener("pointerdown", (event) => {
    const button = event.target.closest("button");
    if (!button || event.button !== 0) return;
    const [i, j] = place(button);
    paints = !model.get("mask")[i][j];
    painted = true;
    body.setPointerCapture(event.pointerId);
    go(i, j);
    set(i, j, paints);
  });
  body.addEventListener("pointermove", (event) => {
    if (paints === null) return;
    const button = under(event);
    if (!button || !body.contains(button)) return;
    go(...place(button), false);
    set(...place(button), paints);
  });
  for (const end of ["pointerup", "pointercancel"]) {
    body.addEventListener(end, () => {
      paints = null;
      setTimeout(() => (painted = false)); // after the click, if one follows
    });
  }
  body.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button || painted) return;
    const [i, j] = place(button);
    go(i, j);
    set(i, j, !model.get("mask")[i][j]);
  });
  body.addEventListener("keydown", (event) => {
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    const step = steps[event.key];
    if (!step || !event.target.closest("button")) return;
    event.preventDefault();
    const last = model.get("words").length - 1;
    const [i, j] = place(event.target.closest("button")).map((at, axis) =>
      Math.min(last, Math.max(0, at + step[axis])),
    );
    go(i, j);
  });
  root.querySelector(".buttons").addEventListener("click", (event) => {
    const name = event.target.dataset.preset;
    if (!name) return;
    const joined = model
      .get("mask")
      .map((row, i) =>
        row.map((may, j) => (may || name === "none") && PRESETS[name](i, j, model)),
      );
    change(joined);
  });
  const names = ["words", "scores", "mask"];
  for (const name of names) model.on(`change:${name}`, draw);
  draw();
  return () => names.forEach((name) => model.off(`change:${name}`, draw));
}

export default { render };
