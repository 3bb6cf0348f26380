// JupyterLab leaves its keys to an element that has the focus and this attribute. An element
// around it that has the attribute is not enough: most of JupyterLab's keys ask for the focus.
addEventListener("focusin", ({ target }) => {
  if (target.closest(".explorable")) target.dataset.lmSuppressShortcuts = "";
});

