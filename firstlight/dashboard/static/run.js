// One run: curves that grow, figures that follow, the end of the log.
import { drawChart, short, smooth } from "./charts.js";

const root = document.getElementById("run");
const base = `/api/run/${root.dataset.id}`;
const [slider, logScale, log] = ["smoothing", "log-scale", "log"].map((id) => document.getElementById(id));
const MOST_STEPS = 4000;
const MOST_LINES = 400;
const CHARTS = {
  loss: () => [steps("loss", "batch", "series-8"), epochs("train_loss", "train", "series-1"), epochs("val_loss", "validation", "series-2")],
  accuracy: () => [epochs("train_accuracy", "train", "series-1"), epochs("val_accuracy", "validation", "series-2")],
  lr: () => [exact("lr", "learning rate", "series-3")],
  throughput: () => [{ label: "images/s", color: "series-6", x: curves.epochs.step ?? [], y: (curves.epochs.seconds ?? []).map((s) => (s && curves.num_train ? curves.num_train / s : null)) }],
  grad_norm: () => [steps("grad_norm", "gradient norm", "series-4")],
};
const NAMES = { epoch: "epoch", step: "step", train_loss: "train loss", train_accuracy: "train accuracy", val_loss: "val loss", val_accuracy: "val accuracy", lr: "lr", seconds: "seconds" };
let curves = { epochs: {}, steps: {}, num_steps: 0, all_steps: true };

function steps(column, label, colour) {
  const y = curves.steps[column] ?? [];
  return { label: `${label}${Number(slider.value) ? ", smoothed" : ""}`, color: colour, faint: column === "loss", x: curves.steps.step ?? [], y: smooth(y, Number(slider.value)) };
}
const exact = (column, label, colour) => ({ label, color: colour, x: curves.steps.step ?? [], y: curves.steps[column] ?? [] });
const epochs = (column, label, colour) => ({ label, color: colour, x: curves.epochs.step ?? [], y: curves.epochs[column] ?? [] });

function draw() {
  document.getElementById("smoothed").value = slider.value;
  let shown = 0;
  for (const figure of document.querySelectorAll("[data-chart]")) {
    const series = CHARTS[figure.dataset.chart]().filter((one) => one.y.some((value) => value !== null));
    figure.hidden = !series.length;
    if (!series.length) continue;
    shown += 1;
    drawChart(figure, { series, log: figure.dataset.chart === "loss" && logScale.checked });
  }
  document.getElementById("no-curves").hidden = shown > 0;
  document.getElementById("thinned").textContent = curves.all_steps ? "" : `${(curves.steps.step ?? []).length.toLocaleString("en")} of ${curves.num_steps.toLocaleString("en")} steps are drawn.`;
  table();
}

function table() {
  const columns = Object.keys(NAMES).filter((name) => curves.epochs[name]?.some((value) => value !== null));
  const made = document.createElement("table");
  const head = made.createTHead().insertRow();
  for (const name of columns) Object.assign(head.appendChild(document.createElement("th")), { textContent: NAMES[name], className: "number", scope: "col" });
  const body = made.createTBody();
  for (let index = (curves.epochs.epoch ?? []).length - 1; index >= 0 && body.rows.length < 500; index--) {
    const row = body.insertRow();
    for (const name of columns) Object.assign(row.insertCell(), { textContent: short(curves.epochs[name][index]), className: "number" });
  }
  document.getElementById("epochs").replaceChildren(made);
}

function add(rows) {
  for (const row of rows) {
    const columns = row.kind === "epoch" ? curves.epochs : curves.steps;
    const [key, length] = [row.kind === "epoch" ? "epoch" : "step", columns.step?.length ?? 0];
    if (length && row[key] <= columns[key][length - 1]) continue; // it came with the curves
    for (const name of new Set([...Object.keys(columns), ...Object.keys(row)])) {
      if (name === "kind") continue;
      columns[name] ??= new Array(length).fill(null);
      columns[name].push(row[name] ?? null);
    }
    if (row.kind === "step") curves.num_steps = row.step;
  }
  if ((curves.steps.step?.length ?? 0) > MOST_STEPS) {
    for (const name of Object.keys(curves.steps)) curves.steps[name] = curves.steps[name].filter((_, index) => index % 2 === 0);
    curves.all_steps = false;
  }
}

async function load() {
  const answer = await fetch(`${base}/curves`);
  if (!answer.ok) return;
  curves = await answer.json();
  draw();
}

async function refresh(withLog = false) {
  const text = await (await fetch(location.href)).text();
  const fresh = new DOMParser().parseFromString(text, "text/html");
  if (!fresh.getElementById("facts")) return;
  document.getElementById("facts").replaceWith(fresh.getElementById("facts"));
  if (withLog) log.textContent = fresh.getElementById("log").textContent;
}

function append(lines) {
  const atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 4;
  log.textContent = [...log.textContent.split("\n"), ...lines].filter((line) => line).slice(-MOST_LINES).join("\n");
  if (atEnd) log.scrollTop = log.scrollHeight;
}

let pending = 0;
function soon() { // one drawing for all that came at once
  pending ||= requestAnimationFrame(() => { pending = 0; draw(); });
}

let stream = null, times = 0;
function listen() {
  stream = new EventSource(`${base}/events`);
  const on = (kind, act) => stream.addEventListener(kind, (event) => act(JSON.parse(event.data)));
  on("hello", () => { load(); if (times++) refresh(true); }); // what came while nobody looked
  on("again", () => load());
  on("rows", (rows) => { add(rows); soon(); if (rows.some((row) => row.kind === "epoch")) refresh(); });
  on("log", append);
  on("facts", () => refresh());
  on("gone", () => { document.getElementById("gone").hidden = false; stream.close(); });
}
// A browser opens six connections to a host; tabs that nobody sees need none.
addEventListener("visibilitychange", () => {
  stream?.close();
  if (!document.hidden) listen();
});
addEventListener("pagehide", () => stream?.close());
if (!document.hidden) listen(); else load();

const kept = (() => { try { return localStorage.getItem("smoothing"); } catch { return null; } })();
slider.value = kept ?? slider.value;
slider.addEventListener("input", () => { try { localStorage.setItem("smoothing", slider.value); } catch { /* not kept */ } draw(); });
logScale.addEventListener("change", draw);
addEventListener("theme", draw);
log.scrollTop = log.scrollHeight;
