// Step through a search: the five best candidates of each step, of which the first ones are kept.
// Word, number of beams and step live in the model, and so do the searches, as texts: a line per
// step, candidates separated by commas, each with its parent in the line before, its symbol, the
// symbol's probability and the score so far. Where the model has answers that were written all at
// once (at_once.py), they stand beside the search, all places there from the beginning.

const ENDED = "<pad>"; // what a whole sequence is lengthened by
const STOP = "<stop>";

function element(tag, attributes = {}, text = "") {
  const svg = ["svg", "line"].includes(tag);
  const node = svg
    ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== "") node.textContent = text;
  return node;
}

export function parse(text) {
  return text.split("\n").map((line) =>
    line.split(",").map((candidate) => {
      const [parent, symbol, prob, score] = candidate.split(" ");
      return { parent: Number(parent), symbol, prob: Number(prob), score: Number(score) };
    }),
  );
}

// The places, row by row, of the candidates that lead to this one.
export function path(rows, last, place) {
  const places = [place];
  for (let row = last; row > 0; row--) places.unshift(rows[row][places[0]].parent);
  return places;
}

// What the likeliest symbols of all places come to. Right answers are counted from 1.
export function verdict({ kind, of, length, places }) {
  const said = places.split("\n").map((line) => line.split(" ")[0]).join(" ");
  const [first, second] = of;
  return `${said}: ${
    {
      right: `right, it is answer ${first}.`,
      mixture: `a mixture of answers ${first} and ${second}.`,
      wrong: `wrong, where it is marked it differs from answer ${first}.`,
      length: `wrong, no right answer has ${length} symbols.`,
    }[kind]
  }`;
}

const named = (symbol) => ({ [STOP]: "stop", [ENDED]: "ended" })[symbol] ?? symbol;
const minus = (number) => number.toFixed(2).replace("-", "−");

function render({ model, el }) {
  const root = element("div", { class: "explorable decoding" });
  root.innerHTML = `
    <div class="controls">
      <label>Word <select class="word"></select></label>
      <label>Beams <select class="beams"><option value="1">1, greedy</option>
        <option>2</option><option>5</option></select></label>
      <label class="steps">Step <input type="range" min="1" step="1"> <output></output></label>
      <span class="buttons"><button type="button" class="back">Back</button>
        <button type="button" class="on">One step on</button></span>
    </div>
    <div class="columns"><div class="search"><table><caption>In each row the five best candidates,
      best first: the symbol, its probability, and below them the score. Solid frames are kept,
      dashed ones fall away. Lines lead to the beginning that is lengthened; thick is the path to
      the best.</caption><tbody></tbody></table><p class="best" role="status"></p></div></div>`;
  el.replaceChildren(root);
  const [select, beams, slider, output, back, on, body, best] = [
    ".word", ".beams", ".steps input", "output", ".back", ".on", "tbody", ".best",
  ].map((s) => root.querySelector(s));
  for (const word of Object.keys(model.get("searches"))) select.append(element("option", {}, word));
  const atOnce = model.get("at_once");
  if (atOnce) {
    root.classList.add("beside");
    root.querySelector("caption").prepend(element("b", {}, "Step by step."), " ");
    const column = element("div", { class: "once" });
    column.innerHTML = `
      <table><caption><b>All at once.</b> Length <span class="length"></span>. Then a row for each
        place, all written in one pass: the five likeliest symbols and their probabilities. Thick
        is the answer. Behind it stands which right answer a mixed symbol is from, or that it is
        wrong.</caption><tbody></tbody></table>
      <p class="answer" role="status"></p>
      <p>Right, by the dictionary:</p><ol></ol>`;
    root.querySelector(".columns").append(column);
  }

  function change(values) {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
    draw();
  }

  function cell(candidate, place, { kept, first, thick, known }) {
    const { parent, symbol, prob, score } = candidate;
    const data = element("td");
    if (!first) {
      const edge = element("svg", {
        viewBox: "0 0 1 1", preserveAspectRatio: "none", "aria-hidden": "true",
      });
      edge.append(element("line", { x1: parent - place + 0.5, y1: 0, x2: 0.5, y2: 1 }));
      data.append(edge);
    }
    data.className = [kept ? "kept" : "dropped", thick ? "thick" : ""].join(" ").trim();
    const box = element("div");
    const top = element("span", { class: "top" });
    top.append(element("b", {}, named(symbol)));
    if (symbol !== ENDED) top.append(" ", element("span", { class: "prob" }, prob.toFixed(2)));
    box.append(top, element("span", { class: "score" }, minus(score)));
    box.append(element("span", { class: "who" }, known));
    data.append(box);
    return data;
  }

  function drawAtOnce(word) {
    const { length, prob, places, marks } = atOnce[word];
    const [told, written, answer, right] = [".length", ".once tbody", ".answer", "ol"].map((s) =>
      root.querySelector(s),
    );
    told.textContent = `${length}, told with probability ${prob.toFixed(2)}`;
    written.replaceChildren();
    places.split("\n").forEach((line, i) => {
      const row = element("tr");
      row.append(element("th", { scope: "row" }, `${i + 1}`));
      line.split(",").forEach((candidate, rank) => {
        const [symbol, share] = candidate.split(" ");
        const data = element("td", { class: rank ? "dropped" : "kept thick" });
        const box = element("div");
        box.append(element("b", {}, symbol), " ");
        box.append(element("span", { class: "prob" }, Number(share).toFixed(2)));
        if (!rank) box.append(element("span", { class: "who" }, ", the answer"));
        data.append(box);
        row.append(data);
      });
      const mark = /\d/.test(marks[i]) ? `from ${marks[i]}` : marks[i];
      row.append(element("td", { class: "mark" }, mark));
      written.append(row);
    });
    answer.textContent = verdict(atOnce[word]);
    right.replaceChildren(...model.get("listed")[word].map((one) => element("li", {}, one)));
  }

  function draw() {
    const [word, width] = [model.get("word"), model.get("n_beams")];
    const rows = parse(model.get("searches")[word][width]);
    const step = Math.min(rows.length, model.get("step"));
    select.value = word;
    beams.value = width;
    slider.max = rows.length;
    slider.value = step;
    output.textContent = `${step} of ${rows.length}`;
    back.disabled = step <= 1;
    on.disabled = step >= rows.length;

    const leading = path(rows, step - 1, 0);
    body.replaceChildren();
    rows.slice(0, step).forEach((row, i) => {
      const line = element("tr");
      line.append(element("th", { scope: "row" }, `${i + 1}`));
      row.forEach((candidate, place) => {
        const kept = place < width;
        const before = i && rows[i - 1][candidate.parent].symbol;
        const after = i ? `, after ${named(before)}, ` : ", ";
        line.append(
          cell(candidate, place, {
            kept, first: i === 0, thick: leading[i] === place,
            known: after + (kept ? "kept" : "falls away"),
          }),
        );
      });
      body.append(line);
    });

    const taken = leading.map((place, i) => rows[i][place]).filter((c) => c.symbol !== ENDED);
    const symbols = taken.map(({ symbol }) => symbol);
    const whole = symbols.at(-1) === STOP;
    const sounds = symbols.filter((symbol) => symbol !== STOP).join(" ") || "nothing";
    const score = minus(rows[step - 1][0].score);
    const which = whole ? "Best, and whole" : "Best beginning";
    let text = `${which}${width > 1 ? `, of ${width}` : ""}: ${sounds}, score ${score}.`;
    const listed = model.get("listed")[word];
    if (step === rows.length && whole && listed.length) {
      text += listed.includes(sounds)
        ? " So it stands in the dictionary."
        : ` The dictionary has ${listed.join(" or ")}.`;
    }
    best.textContent = text;
    if (atOnce) drawAtOnce(word);
  }

  select.addEventListener("change", () => change({ word: select.value, step: 1 }));
  beams.addEventListener("change", () => change({ n_beams: Number(beams.value) }));
  slider.addEventListener("input", () => change({ step: Number(slider.value) }));
  function walk(by, pressed, other) {
    change({ step: Number(slider.value) + by });
    if (pressed.disabled) other.focus(); // at the end: the keyboard stays here
  }
  back.addEventListener("click", () => walk(-1, back, on));
  on.addEventListener("click", () => walk(1, on, back));
  const names = ["word", "n_beams", "step"];
  for (const name of names) model.on(`change:${name}`, draw);
  draw();
  return () => names.forEach((name) => model.off(`change:${name}`, draw));
}

export default { render };
