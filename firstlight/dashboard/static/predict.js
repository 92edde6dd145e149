// An image that is dropped or chosen, what the network saw of it, and the probability of each class.
import { el } from "/static/draw.js";

const page = document.getElementById("predict");
const drop = document.getElementById("drop"), file = document.getElementById("file"), status = document.getElementById("status");
const problem = document.getElementById("problem"), result = document.getElementById("result");
const MAX_BYTES = 2 ** 20, SHOWN = 15;
let asked = 0;

const say = (text) => { status.textContent = text; };
const fail = (text) => { problem.textContent = text; problem.hidden = !text; if (text) { result.hidden = true; say(""); } };

const picture = async (image) => {
  const canvas = el("canvas", { width: 144, height: 144, role: "img", "aria-label": "the image as it came" });
  const bitmap = await createImageBitmap(image).catch(() => null);
  if (bitmap === null) return null;
  const scale = Math.min(288 / bitmap.width, 288 / bitmap.height);
  [canvas.width, canvas.height] = [288, 288];
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = scale < 1;
  context.drawImage(bitmap, (288 - bitmap.width * scale) / 2, (288 - bitmap.height * scale) / 2, bitmap.width * scale, bitmap.height * scale);
  return canvas;
};

const pixels = (seen) => {
  const bytes = Uint8Array.from(atob(seen.pixels), (letter) => letter.charCodeAt(0));
  const canvas = el("canvas", { width: seen.width, height: seen.height, class: "seen", role: "img", "aria-label": "what the network saw" });
  const context = canvas.getContext("2d"), image = context.createImageData(seen.width, seen.height);
  for (let place = 0; place < seen.width * seen.height; place += 1) {
    for (let channel = 0; channel < 3; channel += 1) image.data[4 * place + channel] = bytes[place * seen.channels + (seen.channels === 1 ? 0 : channel)];
    image.data[4 * place + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  return canvas;
};

const show = (found, original, called) => {
  const order = found.probabilities.map((_, label) => label).sort((a, b) => found.probabilities[b] - found.probabilities[a]);
  const best = order[0];
  const shown = found.class_names.length <= SHOWN ? found.class_names.map((_, label) => label) : order.slice(0, SHOWN);
  const bars = shown.map((label) => {
    const share = found.probabilities[label], fillBar = el("span", {});
    fillBar.style.width = `${Math.max(share, 0.002) * 100}%`;
    return [el("dt", {}, found.class_names[label]), el("dd", { class: `track${label === best ? " first" : ""}` }, fillBar), el("dd", {}, share.toFixed(3))];
  });
  const figure = (canvas, caption) => (canvas ? el("figure", {}, canvas, el("figcaption", {}, caption)) : null);
  result.replaceChildren(
    el("div", { class: "views" }, figure(original, called), figure(pixels(found.seen), `what the network saw: ${found.seen.width} x ${found.seen.height}, ${found.seen.channels === 1 ? "grey" : "colour"}`)),
    el("div", {}, el("p", { class: "answer" }, "This is taken for ", el("strong", {}, found.class_names[best]), `, with probability ${found.probabilities[best].toFixed(3)}`),
      el("dl", { class: "bars", id: "bars" }, bars), shown.length < found.class_names.length ? el("p", { class: "soft" }, `the likeliest ${shown.length} of ${found.class_names.length} classes`) : null,
      el("p", { class: "soft" }, "A network answers with one of its classes whatever the image shows; a probability near 1 is no proof.")));
  result.hidden = false;
};

const ask = async (image) => {
  const own = (asked += 1);
  fail("");
  if (image.size > MAX_BYTES) return fail(`${image.name} has ${image.size.toLocaleString("en")} bytes; at most ${MAX_BYTES.toLocaleString("en")} are taken, so make it smaller`);
  if (image.size === 0) return fail(`${image.name} is empty; choose another file`);
  say(`looking at ${image.name}; the first image takes some seconds …`);
  drop.setAttribute("aria-busy", "true");
  try {
    const response = await fetch(`/api/run/${page.dataset.id}/predict`, { method: "POST", body: image, headers: { "content-type": "application/octet-stream" } });
    const found = await response.json().catch(() => ({ error: `the server answered with ${response.status}` }));
    if (own !== asked) return undefined;
    if (!response.ok) return fail(found.error);
    show(found, await picture(image), image.name);
    say("");
  } catch {
    if (own === asked) fail("no answer from firstlight; does `firstlight dashboard` still run?");
  } finally {
    if (own === asked) drop.removeAttribute("aria-busy");
  }
  return undefined;
};

file.addEventListener("change", () => { if (file.files.length) ask(file.files[0]); });
for (const kind of ["dragover", "dragenter"]) page.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
for (const kind of ["dragleave", "drop"]) page.addEventListener(kind, () => drop.classList.remove("over"));
page.addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files.length) ask(event.dataTransfer.files[0]);
  else fail("that was no file; drop an image file, or choose one");
});
// A file dropped beside the box would otherwise replace the page.
for (const kind of ["dragover", "drop"]) addEventListener(kind, (event) => event.preventDefault());
