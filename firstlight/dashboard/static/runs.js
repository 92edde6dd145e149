// Keeps the list of runs up to date, sends the form when a choice changes, and moves between rows by the arrow keys.
const live = () => document.getElementById("live");
const ticked = new Set();

function listen() {
  const form = document.querySelector("form.chooser");
  const boxes = () => [...(form?.querySelectorAll("input[name=show]") ?? [])];
  form?.addEventListener("submit", () => { // an address says only what was chosen
    const same = boxes().every((box) => box.checked === box.defaultChecked);
    if (same && !new URLSearchParams(location.search).has("show")) for (const box of boxes()) box.disabled = true;
    for (const field of form.querySelectorAll("[name=q], [name=group]")) field.disabled = !field.value;
  });
  for (const select of form?.querySelectorAll("select") ?? []) select.addEventListener("change", () => form.requestSubmit());
  for (const box of document.querySelectorAll("td.tick input")) {
    box.checked = ticked.has(box.value);
    box.addEventListener("change", () => (box.checked ? ticked.add(box.value) : ticked.delete(box.value)));
  }
}

// What one types or opens is not taken away.
const busy = () => document.activeElement?.matches("input[type=search], select") || document.querySelector("details[open]");

async function update() {
  if (document.hidden || busy()) return;
  const now = await (await fetch("/api/version")).json();
  if (String(now.version) === live().dataset.version) return;
  const text = await (await fetch(location.href)).text();
  const fresh = new DOMParser().parseFromString(text, "text/html").getElementById("live");
  if (!fresh || busy()) return;
  const focused = document.activeElement?.getAttribute("href");
  const [left, top] = [document.querySelector(".wide")?.scrollLeft, document.querySelector(".wide")?.scrollTop];
  live().replaceWith(fresh);
  listen();
  document.querySelector(".wide")?.scrollTo(left ?? 0, top ?? 0);
  if (focused) [...fresh.querySelectorAll("a")].find((link) => link.getAttribute("href") === focused)?.focus({ preventScroll: true });
}

document.addEventListener("keydown", (event) => {
  if (!["ArrowDown", "ArrowUp"].includes(event.key) || !document.activeElement?.matches("tbody th a")) return;
  const links = [...document.querySelectorAll("tbody th a")];
  const next = links[links.indexOf(document.activeElement) + (event.key === "ArrowDown" ? 1 : -1)];
  if (next) { next.focus(); event.preventDefault(); }
});

addEventListener("pageshow", () => { // back from another page
  for (const field of document.querySelectorAll(".chooser :disabled")) field.disabled = false;
});
listen();
setInterval(() => update().catch(() => {}), 1500);
