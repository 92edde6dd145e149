// The lock: four pads that keep their strokes as points, and a server that says what it reads.

const INK = 0.07; // width of the pen on the screen, as a share of a pad's side; what is read does not depend on it
const page = document.querySelector("#lock");
const says = document.querySelector("#says");
const pads = [...document.querySelectorAll(".pad")].map(makePad);
const submit = document.querySelector("#submit");
let waiting = 0; // milliseconds since the page was opened until which no code is taken

function makePad(element) {
  const canvas = element.querySelector(".drawing");
  const pad = { element, canvas, strokes: [], pointer: null };
  canvas.addEventListener("pointerdown", (event) => {
    if (pad.pointer !== null || (event.pointerType === "mouse" && event.button !== 0)) return;
    pad.pointer = event.pointerId;
    canvas.setPointerCapture(event.pointerId);
    forget(pad);
    pad.strokes.push([place(canvas, event)]);
    paint(pad);
    event.preventDefault();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (pad.pointer !== event.pointerId) return;
    const steps = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
    const stroke = pad.strokes.at(-1);
    for (const step of steps.length ? steps : [event]) {
      const point = place(canvas, step);
      const last = stroke.at(-1);
      if (Math.hypot(point[0] - last[0], point[1] - last[1]) > 0.005) stroke.push(point);
    }
    paint(pad);
  });
  for (const name of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(name, (event) => {
      if (pad.pointer === event.pointerId) pad.pointer = null;
      update();
    });
  }
  element.querySelector(".undo").addEventListener("click", () => change(pad, () => pad.strokes.pop()));
  element.querySelector(".clear").addEventListener("click", () => change(pad, () => (pad.strokes = [])));
  return pad;
}

function place(canvas, event) {
  const box = canvas.getBoundingClientRect();
  const inside = (value) => Math.min(Math.max(Math.round(value * 1e4) / 1e4, -0.2), 1.2);
  return [inside((event.clientX - box.left) / box.width), inside((event.clientY - box.top) / box.height)];
}

function change(pad, act) {
  act();
  forget(pad);
  paint(pad);
  update();
}

function paint({ canvas, strokes }) {
  const side = Math.round(canvas.clientWidth * (window.devicePixelRatio || 1));
  if (canvas.width !== side) canvas.width = canvas.height = side;
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, side, side);
  pen.lineWidth = INK * side;
  pen.lineCap = pen.lineJoin = "round";
  pen.strokeStyle = getComputedStyle(canvas).color;
  for (const stroke of strokes) {
    pen.beginPath();
    pen.moveTo(stroke[0][0] * side, stroke[0][1] * side);
    for (const [x, y] of stroke.length > 1 ? stroke.slice(1) : stroke) pen.lineTo(x * side, y * side);
    pen.stroke();
  }
}

function forget(pad) {
  pad.element.querySelector(".read").textContent = "";
  pad.element.querySelector(".seen").hidden = true;
  pad.element.classList.remove("unsure");
  if (page.dataset.state !== "set") page.dataset.state = "closed";
}

function show(pad, read) {
  const percent = (value) => `${Math.floor(value * 100)} %`;
  const other = read.second_probability >= 0.01 ? `, or ${read.second} (${percent(read.second_probability)})` : "";
  pad.element.querySelector(".read").textContent = `read as ${read.digit} (${percent(read.probability)}${other})`;
  pad.element.classList.toggle("unsure", !read.is_sure);
  const seen = pad.element.querySelector(".seen");
  const pixels = new ImageData(28, 28);
  read.image.forEach((value, place) => pixels.data.set([value, value, value, 255], 4 * place));
  seen.getContext("2d").putImageData(pixels, 0, 0);
  seen.hidden = false;
}

function update() {
  const left = Math.ceil((waiting - performance.now()) / 1000);
  submit.disabled = left > 0;
  submit.textContent = left > 0 ? `Wait ${left} s` : "Open";
  for (const pad of pads) {
    for (const button of pad.element.querySelectorAll("button")) button.disabled = !pad.strokes.length;
  }
  if (left > 0) setTimeout(update, 250);
}

function tell(text, kind = "") {
  says.textContent = text;
  says.dataset.kind = kind;
}

async function send(path, value) {
  const answer = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(value) });
  const found = await answer.json();
  return { ...found, ok: answer.ok, says: found.says || found.error };
}

async function tryCode() {
  const empty = pads.map((pad, place) => (pad.strokes.length ? 0 : place + 1)).filter(Boolean);
  if (empty.length) return tell(`Draw a digit on ${empty.length === 1 ? "pad" : "pads"} ${empty.join(", ")} first.`, "wrong");
  submit.disabled = true;
  try {
    const found = await send("/api/lock/open", { pads: pads.map((pad) => pad.strokes) });
    (found.read || []).forEach((read, place) => show(pads[place], read));
    if (found.wait_seconds) waiting = performance.now() + 1000 * found.wait_seconds;
    page.dataset.state = found.open ? "open" : "closed";
    tell(found.says, found.open ? "right" : "wrong");
  } catch {
    tell("The server does not answer; is `firstlight lock` still running?", "wrong");
  }
  update();
}

async function setCode(event) {
  event.preventDefault();
  const [code, again] = ["code", "again"].map((name) => document.querySelector(`#${name}`).value);
  if (code !== again) return tell("The two codes differ.", "wrong");
  const drawn = page.dataset.state === "open" ? { pads: pads.map((pad) => pad.strokes) } : {};
  try {
    const found = await send("/api/lock/code", { code, ...drawn });
    if (!found.ok) return tell(found.says, "wrong");
    event.target.reset();
    document.querySelector("#choose").open = false;
    for (const text of document.querySelectorAll("#choose [data-later]")) text.textContent = text.dataset.later;
    for (const pad of pads) change(pad, () => (pad.strokes = []));
    page.dataset.state = "closed";
    tell(found.says, "right");
  } catch {
    tell("The server does not answer; is `firstlight lock` still running?", "wrong");
  }
}

submit.addEventListener("click", tryCode);
document.querySelector("#clear").addEventListener("click", () => {
  for (const pad of pads) change(pad, () => (pad.strokes = []));
  tell("");
});
document.querySelector("#choose form").addEventListener("submit", setCode);
addEventListener("theme", () => pads.forEach(paint));
new ResizeObserver(() => pads.forEach(paint)).observe(page);
waiting = performance.now() + 1000 * Number(page.dataset.wait);
update();
