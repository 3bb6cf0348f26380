// Pick a place on the sliders or in the picture: the curve says which other places are like it.
// The two places and the width live in the model; all else is computed here, as
// transformer_lit.positions.sinusoids does (a test compares the numbers).

const PLACES = 64;

export function sinusoid(place, width) {
  return Array.from({ length: width }, (_, column) => {
    const angle = place / 10000 ** ((column - (column % 2)) / width);
    return column % 2 ? Math.cos(angle) : Math.sin(angle);
  });
}

function alike(place, width) {
  const picked = sinusoid(place, width);
  return Array.from({ length: PLACES }, (_, other) => {
    const vector = sinusoid(other, width);
    return picked.reduce((sum, value, i) => sum + value * vector[i], 0) / (width / 2);
  });
}

// From -1, dark, to 1, bright: the colours of the book's other tables.
const STOPS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];

function colour(value) {
  const at = Math.min(0.9999, Math.max(0, (value + 1) / 2)) * (STOPS.length - 1);
  const low = Math.floor(at);
  return STOPS[low].map((c, i) => Math.round(c + (at - low) * (STOPS[low + 1][i] - c)));
}

function render({ model, el }) {
  el.innerHTML = `<div class="explorable positions">
    <p>Each column of the picture is the vector of a place, its sines above its cosines, from -1
      (dark) to 1 (bright). Choose a place on the slider or in the picture (solid frame): the bars
      say how alike the others are to it.</p>
    <div class="controls">
      <label>Place <input class="place" type="range" min="0" max="${PLACES - 1}"><output></output></label>
      <label>compared with <input class="other" type="range" min="0" max="${PLACES - 1}"><output></output></label>
      <label>Width <select>
        ${[8, 16, 32, 64, 128].map((width) => `<option>${width}</option>`).join("")}
      </select></label>
    </div>
    <p class="said" role="status"></p>
    <div class="pictures">
      <div class="scale"><span>fast</span><span>sines</span><span>slow</span>
        <span>fast</span><span>cosines</span><span>slow</span></div>
      <div class="plot map"><canvas width="${PLACES}" aria-hidden="true"></canvas>
        <span class="frame place"></span><span class="frame other"></span></div>
      <div class="ticks" aria-hidden="true"><span>place 0</span><span>${PLACES - 1}</span></div>
      <div class="scale"><span>1</span><span>cosine</span><span>0</span></div>
      <div class="plot curve"><svg viewBox="0 0 ${PLACES} 1" preserveAspectRatio="none"
        aria-hidden="true"></svg></div>
    </div>
    <details><summary>All the numbers</summary>
      <div class="column" tabindex="0" role="region" aria-label="The cosine to each place">
        <table><thead><tr><th scope="col">Place</th><th scope="col">Cosine</th></tr></thead>
        <tbody></tbody></table></div>
      <p class="vector"></p></details></div>`;
  const find = (selector) => el.querySelector(selector);
  const [canvas, curve, width] = ["canvas", "svg", "select"].map(find);

  function change(values) {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
    draw();
  }

  function draw() {
    const [place, other, d] = ["place", "other", "d_model"].map((name) => model.get(name));
    for (const [name, value] of [["place", place], ["other", other]]) {
      const slider = find(`input.${name}`);
      slider.value = value;
      slider.nextElementSibling.textContent = value;
      find(`.frame.${name}`).style.left = `${(100 * value) / PLACES}%`;
    }
    width.value = d;

    canvas.height = d;
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(PLACES, d);
    for (let column = 0; column < PLACES; column++) {
      sinusoid(column, d).forEach((value, i) => {
        const row = (i - (i % 2)) / 2 + (i % 2) * (d / 2); // pairs taken apart, so that waves show
        pixels.data.set([...colour(value), 255], 4 * (row * PLACES + column));
      });
    }
    context.putImageData(pixels, 0, 0);

    const cosines = alike(place, d);
    curve.innerHTML = cosines
      .map((cosine, i) => {
        const role = i === place ? " place" : i === other ? " other" : "";
        const height = Math.max(0, cosine);
        return `<rect class="bar${role}" x="${i + 0.1}" y="${1 - height}" width="0.8" height="${height}"/>`;
      })
      .join("");
    const apart = Math.abs(place - other);
    find(".said").textContent =
      `Places ${place} and ${other} are ${apart} apart: cosine ${cosines[other].toFixed(3)}, ` +
      `dot product ${((cosines[other] * d) / 2).toFixed(3)} of ${d / 2}.`;
    find("tbody").innerHTML = cosines
      .map((cosine, i) => `<tr><th scope="row">${i}</th><td>${cosine.toFixed(4)}</td></tr>`)
      .join("");
    const numbers = sinusoid(place, d).map((value) => value.toFixed(4));
    find(".vector").textContent = `The vector of place ${place}: ${numbers.join(" ")}`;
  }

  for (const name of ["place", "other"]) {
    const slider = find(`input.${name}`);
    slider.addEventListener("input", () => change({ [name]: Number(slider.value) }));
  }
  width.addEventListener("change", () => change({ d_model: Number(width.value) }));
  for (const plot of el.querySelectorAll(".plot")) {
    const pick = (event) => {
      const box = plot.getBoundingClientRect();
      const place = Math.floor(((event.clientX - box.left) / box.width) * PLACES);
      change({ place: Math.min(PLACES - 1, Math.max(0, place)) });
    };
    plot.addEventListener("pointerdown", (event) => {
      plot.setPointerCapture(event.pointerId);
      pick(event);
    });
    plot.addEventListener("pointermove", (event) => {
      if (plot.hasPointerCapture(event.pointerId)) pick(event);
    });
  }
  const names = ["place", "other", "d_model"];
  for (const name of names) model.on(`change:${name}`, draw);
  draw();
  return () => names.forEach((name) => model.off(`change:${name}`, draw));
}

export default { render };
