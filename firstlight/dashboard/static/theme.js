// Light or dark as the system says, or as was chosen here. Loaded before the page is drawn, so that nothing flashes.
const chosen = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
const dark = () => (document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
if (chosen()) document.documentElement.dataset.theme = chosen();
addEventListener("DOMContentLoaded", () => {
  document.getElementById("theme").addEventListener("click", () => {
    document.documentElement.dataset.theme = dark() ? "light" : "dark";
    try { localStorage.setItem("theme", document.documentElement.dataset.theme); } catch { /* not kept */ }
    dispatchEvent(new Event("theme"));
  });
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => dispatchEvent(new Event("theme")));
