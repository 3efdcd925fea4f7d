// On paper nothing can be unfolded, and paper is white: while the page is printed, what is folded is
// open, and what is dark is light.
addEventListener("beforeprint", () => {
  for (const folded of document.querySelectorAll("details:not([open])")) {
    folded.open = true;
    folded.dataset.folded = "";
  }
  const root = document.documentElement;
  if (root.dataset.theme === "dark") {
    root.dataset.theme = "light";
    root.dataset.dark = "";
  }
});
addEventListener("afterprint", () => {
  for (const folded of document.querySelectorAll("details[data-folded]")) {
    folded.open = false;
    delete folded.dataset.folded;
  }
  const root = document.documentElement;
  if ("dark" in root.dataset) {
    root.dataset.theme = "dark";
    delete root.dataset.dark;
  }
});
