// Draws the explorables that a notebook saved, on a page that has no kernel.
//
// myst-nb leaves two kinds of JSON in the page: one script with the state of every widget, and one
// script per view that names its model. Each widget's own module travels in its state (`_esm`), so
// importing that and handing it a small model object is all there is to do.

"use strict";

(() => {
  const STATE = "application/vnd.jupyter.widget-state+json";
  const VIEW = "application/vnd.jupyter.widget-view+json";

  // The part of anywidget's model that explorables use. What is set stays in the page.
  const makeModel = (saved) => {
    const state = { ...saved };
    const listeners = {};
    const model = {
      get: (name) => state[name],
      set(name, value) {
        if (Object.is(state[name], value)) return;
        state[name] = value;
        for (const event of [`change:${name}`, "change"])
          for (const callback of [...(listeners[event] ?? [])]) callback(model, value);
      },
      save_changes() {}, // no kernel to tell, and nothing to send
      send() {},
      on: (event, callback) => (listeners[event] ??= new Set()).add(callback),
      off: (event, callback) =>
        callback ? listeners[event]?.delete(callback) : delete listeners[event],
    };
    return model;
  };

  async function load(entry) {
    const model = makeModel(entry.state);
    const url = URL.createObjectURL(new Blob([model.get("_esm")], { type: "text/javascript" }));
    try {
      const module = await import(url);
      const widget = module.default ?? { render: module.render };
      const methods = typeof widget === "function" ? await widget() : widget;
      await methods.initialize?.({ model });
      return { model, methods };
    } finally {
      URL.revokeObjectURL(url);
    }
  }

  function style(id, css) {
    if (!css || document.querySelector(`style[data-explorable="${id}"]`)) return;
    const element = document.createElement("style");
    element.dataset.explorable = id;
    element.textContent = css;
    document.head.append(element);
  }

  async function draw(view, states, loaded) {
    const id = JSON.parse(view.textContent).model_id;
    const entry = states[id];
    const el = document.createElement("div");
    el.className = "explorable-view";
    view.after(el);
    try {
      if (!entry?.state._esm) throw new Error(`no saved explorable with the id ${id}`);
      if (!loaded.has(id)) loaded.set(id, load(entry)); // views of one model share it
      const { model, methods } = await loaded.get(id);
      style(entry.state._anywidget_id ?? id, entry.state._css);
      await methods.render({ model, el });
      el.dataset.ready = "true";
    } catch (error) {
      el.setAttribute("role", "alert");
      el.textContent = `This figure could not be drawn: ${error.message}`;
      console.error(error);
    }
  }

  async function main() {
    const saved = document.querySelector(`script[type="${STATE}"]`);
    if (!saved) return;
    const states = JSON.parse(saved.textContent).state;
    const loaded = new Map();
    const views = document.querySelectorAll(`script[type="${VIEW}"]`);
    await Promise.all([...views].map((view) => draw(view, states, loaded)));
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", main);
  else main();
})();
