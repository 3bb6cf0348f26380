// Runs the pronouncer in the reader's browser: letters in, phonemes out, one step after another.
//
// Nothing is loaded before the button is pressed. Then come the ONNX runtime, the two graphs that
// experiments/pronouncer_to_onnx.py writes, and the test words with their pronunciations; about.js,
// which the build writes too, has the symbols and the sizes. What is loaded is deflated.

"use strict";

(() => {
  const { letters, phonemes, layers, heads, maxLen, bytes } = globalThis.PRONOUNCER;
  const HERE = document.currentScript.src;
  const [PAD, BEGIN, STOP] = ["<pad>", "<begin>", "<stop>"].map((name) => phonemes.indexOf(name));
  const SHOWN = 5; // of the phonemes that may come next
  const PAUSE = 120; // milliseconds between two phonemes, for the eye

  // --- the model -----------------------------------------------------------------------------

  async function load(progress) {
    let arrived = 0;
    const fetched = async (name) => {
      const response = await fetch(new URL(name, HERE));
      if (!response.ok) throw new Error(`the server answers ${response.status} for ${name}`);
      const counted = new TransformStream({
        transform(chunk, controller) {
          arrived += chunk.length;
          progress(arrived);
          controller.enqueue(chunk);
        },
      });
      const stream = response.body.pipeThrough(counted);
      return new Response(stream.pipeThrough(new DecompressionStream("deflate"))).arrayBuffer();
    };
    const names = ["runtime.z", "encoder.z", "decoder.z", "words.z"];
    const [ort, runtime, encoder, decoder, words] = await Promise.all([
      import(new URL("ort.wasm.bundle.min.mjs", HERE)),
      ...names.map(fetched),
    ]);
    ort.env.wasm.numThreads = 1; // more would need headers that not every host sends
    ort.env.wasm.wasmBinary = runtime;
    const reader = await ort.InferenceSession.create(new Uint8Array(encoder));
    const writer = await ort.InferenceSession.create(new Uint8Array(decoder));
    const ids = (list) => new ort.Tensor("int64", BigInt64Array.from(list, BigInt), [1, list.length]);
    return {
      // Keys and values of a word, for each block of the decoder.
      read: (word) => reader.run({ source: ids([...word].map((letter) => letters.indexOf(letter))) }),
      // What comes next after some tokens, and where each of them looked.
      async next(tokens, memory) {
        const { log_probs, weights } = await writer.run({ target: ids(tokens), ...memory });
        return { logProbs: log_probs.data, weights: weights.data };
      },
      listed: new Map(
        new TextDecoder().decode(words).trim().split("\n").map((line) => {
          const space = line.indexOf(" ");
          return [line.slice(0, space), line.slice(space + 1).split(",")];
        }),
      ),
    };
  }

  // Beam search by the rules of decoding.py; with a width of 1 it is greedy. Beginnings compete by
  // log-probability divided by length, the stop token counted, and whole ones stay as they are.
  // Each round yields the beginnings that were kept, best first.
  async function* search(model, word, width) {
    const memory = await model.read(word);
    let beams = [{ tokens: [BEGIN], logProb: 0, score: 0, steps: [], whole: false }];
    for (let length = 1; length <= maxLen && beams.some(({ whole }) => !whole); length++) {
      const grown = beams.filter(({ whole }) => whole);
      for (const beam of beams.filter(({ whole }) => !whole)) {
        const { logProbs, weights } = await model.next(beam.tokens, memory);
        const ranked = [...logProbs.keys()]
          .filter((id) => id !== PAD && id !== BEGIN) // never written, however likely
          .sort((a, b) => logProbs[b] - logProbs[a]);
        const likeliest = ranked.slice(0, SHOWN).map((id) => [id, Math.exp(logProbs[id])]);
        for (const token of ranked.slice(0, width)) {
          const logProb = beam.logProb + logProbs[token];
          grown.push({
            tokens: [...beam.tokens, token],
            logProb,
            score: logProb / length,
            steps: [...beam.steps, { token, likeliest }],
            weights,
            whole: token === STOP,
          });
        }
      }
      beams = grown.sort((a, b) => b.score - a.score).slice(0, width);
      yield beams;
    }
    // Those cut off count only where nothing is whole.
    if (new Set(beams.map(({ whole }) => whole)).size > 1) yield beams.filter(({ whole }) => whole);
  }

  const said = (beam) => beam.tokens.slice(1).filter((id) => id !== STOP).map((id) => phonemes[id]);

  // What is wrong with a word, or nothing.
  function complaint(word) {
    if (!word) return "Type a word first.";
    const unknown = [...new Set(word)].filter((letter) => !letters.includes(letter));
    if (unknown.length)
      return (
        `The pronouncer does not know ${unknown.map((letter) => `“${letter}”`).join(", ")}: ` +
        "it reads one word of the letters a to z and the apostrophe."
      );
    if (word.length > maxLen)
      return `The word has ${word.length} letters; the pronouncer reads at most ${maxLen}.`;
    return "";
  }

  // --- the page ------------------------------------------------------------------------------

  function element(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  }

  const megabytes = (number) => (number / 1e6).toFixed(1);
  const options = (name, count) =>
    Array.from({ length: count }, (_, i) => `<option value="${i}">${name} ${i}</option>`).join("");

  // A cell whose ground is the darker, the larger the share; the number in it stays legible.
  function shaded(share, ...children) {
    const cell = element("td", {}, ...children);
    cell.style.background = `color-mix(in srgb, var(--output) ${45 * share}%, var(--surface))`;
    return cell;
  }

  const root = document.querySelector("#pronouncer"); // in book/pronouncer.md
  root.innerHTML = `
    <div class="start">
      <p><button type="button">Load the model (${megabytes(bytes)} MB)</button></p>
      <progress max="${bytes}" value="0" aria-label="Loading the model" hidden></progress>
    </div>
    <form hidden>
      <label>Word <input type="text" autocomplete="off" autocapitalize="none" autocorrect="off"
        spellcheck="false" enterkeyhint="go" aria-describedby="pronouncer-complaint"></label>
      <label>Decoding <select><option value="1">greedy</option>
        <option value="5">beam search, 5 beams</option></select></label>
      <span class="buttons"><button>Read it</button>
        <button type="button" class="draw">Draw a test word</button></span>
    </form>
    <p id="pronouncer-complaint" class="complaint" role="alert"></p>
    <p class="sounds" aria-hidden="true"></p>
    <p class="result" role="status"></p>
    <div class="shown" hidden>
      <div class="wide" tabindex="0" role="region" aria-label="Phonemes">
        <table class="steps"><caption>What was written, and the ${SHOWN} likeliest phonemes at each
          step, in percent</caption><tbody></tbody></table></div>
      <div class="looks">
        <p><label>Layer <select class="layer">${options("layer", layers)}</select></label>
          <label>Head <select class="head">${options("head", heads)}</select></label></p>
        <div class="wide" tabindex="0" role="region" aria-label="Attention">
          <table class="heat"><caption>Percent of each phoneme's weight (rows, blue) on each letter
            (columns, red)</caption><thead><tr></tr></thead><tbody></tbody></table></div>
      </div>
      <div class="wide kept" tabindex="0" role="region" aria-label="Beams">
        <table><caption>The beginnings kept, by log-probability divided by length</caption>
          <tbody></tbody></table></div>
    </div>`;
  const find = (selector) => root.querySelector(selector);
  const [start, bar, form, input, width] = [
    ".start button", "progress", "form", "input", "form select",
  ].map(find);
  const [wrong, sounds, result, shown, layer, head] = [
    ".complaint", ".sounds", ".result", ".shown", ".layer", ".head",
  ].map(find);
  [layer.value, head.value] = [1, 2]; // the head that chapter 11 shows first

  function drawSteps({ steps }) {
    find(".steps tbody").replaceChildren(
      ...steps.map(({ token, likeliest }) =>
        element("tr", {},
          element("th", { scope: "row" }, name(token)),
          ...likeliest.map(([id, share]) => {
            const cell = shaded(share, element("span", {}, name(id)), ` ${(100 * share).toFixed(1)}`);
            if (id === token) cell.classList.add("written");
            return cell;
          }),
        ),
      ),
    );
  }

  function drawKept(beams) {
    find(".kept").hidden = width.value === "1";
    find(".kept tbody").replaceChildren(
      ...beams.map((beam) =>
        element("tr", {},
          element("td", {}, beam.score.toFixed(3)),
          element("td", {}, said(beam).join(" ") + (beam.whole ? " stop" : " …")),
        ),
      ),
    );
  }

  function drawHeat({ word, beams: [{ steps, weights }] }) {
    const size = steps.length * word.length;
    const first = (Number(layer.value) * heads + Number(head.value)) * size;
    find(".heat thead tr").replaceChildren(
      element("td"),
      ...[...word].map((letter) => element("th", { scope: "col" }, letter)),
    );
    find(".heat tbody").replaceChildren(
      ...steps.map(({ token }, row) => {
        const from = first + row * word.length;
        const cells = [...weights.subarray(from, from + word.length)];
        return element("tr", {},
          element("th", { scope: "row" }, name(token)),
          ...cells.map((share) => shaded(share, `${Math.round(100 * share)}`)),
        );
      }),
    );
  }

  const name = (id) => (id === STOP ? "stop" : phonemes[id]);

  // What is said in the end, beside what the dictionary has.
  function verdict(model, word, best) {
    const read = said(best).join(" ");
    const found = `${word} is read as ${read}${best.whole ? "" : " and so on, without an end"}`;
    const listed = model.listed.get(word);
    if (!listed)
      return (
        `${found}. It is none of the ${model.listed.size.toLocaleString("en")} test words, ` +
        "so there is nothing here to compare it with."
      );
    if (best.whole && listed.includes(read)) return `${found}, as the dictionary has it.`;
    return `${found}; the dictionary has ${listed.join(" or ")}.`;
  }

  let model = null;
  let turn = 0; // a new word stops the one before it
  let state = null; // what is drawn

  async function read() {
    const mine = ++turn;
    const word = input.value.trim().toLowerCase().replaceAll("’", "'");
    wrong.textContent = complaint(word);
    input.setAttribute("aria-invalid", String(wrong.textContent !== ""));
    sounds.textContent = result.textContent = "";
    state = null;
    shown.hidden = true;
    if (wrong.textContent) return;
    shown.setAttribute("aria-busy", "true");
    try {
      for await (const beams of search(model, word, Number(width.value))) {
        if (mine !== turn) return;
        state = { word, beams };
        sounds.textContent = said(beams[0]).join(" ");
        drawSteps(beams[0]);
        drawKept(beams);
        drawHeat(state);
        shown.hidden = false;
        const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
        await new Promise((done) => setTimeout(done, still ? 0 : PAUSE));
        if (mine !== turn) return;
      }
      sounds.textContent = "";
      result.textContent = verdict(model, word, state.beams[0]);
    } catch (error) {
      wrong.textContent = `The word could not be read: ${error.message}`;
    }
    shown.setAttribute("aria-busy", "false");
  }

  function draw() {
    const words = [...model.listed.keys()];
    input.value = words[Math.floor(Math.random() * words.length)];
    read();
  }

  async function begin() {
    start.disabled = true;
    bar.hidden = false;
    wrong.textContent = "";
    result.textContent = "The model is being loaded.";
    try {
      model = await load((arrived) => (bar.value = arrived));
    } catch (error) {
      result.textContent = "";
      wrong.textContent = `The model could not be loaded: ${error.message}`;
      start.disabled = false;
      bar.hidden = true;
      return;
    }
    find(".start").hidden = true;
    form.hidden = false;
    result.textContent = "The model is ready.";
    input.focus();
  }

  if (location.protocol === "file:") {
    find(".start").hidden = true;
    result.textContent =
      "Browsers do not let a page that was opened as a file load a model. Read this page on the " +
      "site, or serve your copy with “make serve”.";
  }
  start.addEventListener("click", begin);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    read();
  });
  width.addEventListener("change", () => input.value && read());
  find(".draw").addEventListener("click", draw);
  for (const choice of [layer, head])
    choice.addEventListener("change", () => state && drawHeat(state));
})();
