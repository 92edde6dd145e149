// Several runs: what they say together, their curves on the same axes, the settings in which they differ. Drawn from /api/compare.
import { cut, duration, el, figure, follow, number, numericScale, responsive, svg } from "/static/draw.js";

const box = document.getElementById("compare");
const hidden = new Set();
const PAIRS = [["accuracy", "accuracy (share of images)"], ["loss", "cross-entropy loss (nats)"]];
const NUM_COLORS = 8;
let data = null, plots = [], log = false;

const ink = (name) => { // light-dark() is settled by the browser when a colour is used, so ask for it on an element
  const probe = el("span", {});
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
};
// Runs of one setting share a colour where seeds are compared; else each run has its own.
const placeOf = (run, index) => {
  const group = data.groups.length > 1 ? data.groups.findIndex((one) => one.runs.includes(run.id)) : -1;
  return group < 0 ? index : group;
};
const colorName = (run, index) => `--series-${(placeOf(run, index) % NUM_COLORS) + 1}`;
const DASHES = [[], [7, 4], [2, 3]];

const curves = (measure, label) => {
  const epochs = [...new Set(data.curves.flatMap((run) => run.epochs))].sort((a, b) => a - b);
  const at = new Map(epochs.map((epoch, index) => [epoch, index]));
  const series = [{ label: "epoch" }], columns = [epochs];
  data.curves.forEach((run, index) => {
    for (const side of ["train", "val"]) {
      const values = new Array(epochs.length).fill(null);
      run[`${side}_${measure}`].forEach((value, place) => { values[at.get(run.epochs[place])] = value === undefined ? null : value; });
      if (values.every((value) => value === null)) continue;
      columns.push(values);
      series.push({ label: `${run.name} ${side === "val" ? "validation" : "training"}`, run: run.id, stroke: ink(colorName(run, index)), width: side === "val" ? 2 : 1.2, alpha: side === "val" ? 1 : 0.75,
        dash: side === "val" ? DASHES[Math.floor(placeOf(run, index) / NUM_COLORS) % 3] : [3, 4], show: !hidden.has(run.id), spanGaps: true, points: { show: epochs.length < 3 || values.filter((value) => value !== null).length < 2, size: 6 } });
    }
  });
  if (columns.length < 2) return null;
  const place = el("div", { class: "curve" }, el("h3", {}, label));
  const readout = el("p", { class: "readout", "aria-live": "off" }, "Point at the chart to read its values.");
  const holder = el("div", {});
  place.append(holder, readout);
  const axis = { stroke: ink("--soft"), grid: { stroke: ink("--line"), width: 1 }, ticks: { stroke: ink("--line"), width: 1 }, font: "12px system-ui, sans-serif" };
  const make = (width) => new uPlot({
    width, height: Math.max(230, Math.min(340, width * 0.55)), series, legend: { show: false },
    scales: { x: { time: false }, y: measure === "loss" && log ? { distr: 3 } : {} },
    axes: [{ ...axis, label: "epoch", labelSize: 20, labelFont: axis.font, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000] }, { ...axis, size: 58 }],
    cursor: { drag: { x: true, y: false }, points: { size: 7 } },
    hooks: { setCursor: [(plot) => {
      const index = plot.cursor.idx;
      readout.textContent = index === null || index === undefined ? "Point at the chart to read its values; drag to look closer, double-click to go back."
        : `epoch ${epochs[index]}: ${series.slice(1).map((one, number_) => ({ one, value: columns[number_ + 1][index] })).filter(({ one, value }) => !hidden.has(one.run) && value !== null).map(({ one, value }) => `${one.label} ${number(value)}`).join(" · ")}`;
    }] },
  }, columns, holder);
  let plot = null;
  new ResizeObserver(() => {
    const width = Math.floor(holder.clientWidth);
    if (width < 60) return;
    if (plot === null) {
      plot = make(width);
      plots.push(plot);
      holder.querySelector("canvas").setAttribute("role", "img");
      holder.querySelector("canvas").setAttribute("aria-label", `${label} by epoch of ${data.curves.length} runs; the tables below have the figures`);
    } else if (plot.width !== width) plot.setSize({ width, height: Math.max(230, Math.min(340, width * 0.55)) });
  }).observe(holder);
  return place;
};

const keys = () => el("ul", { class: "runkeys", "aria-label": "Runs; press one to hide or show its curves" }, data.curves.map((run, index) => {
  const swatch = el("span", { class: "swatch", "aria-hidden": "true" });
  swatch.style.background = `var(${colorName(run, index)})`;
  const group = data.groups.length > 1 ? data.groups.find((one) => one.runs.includes(run.id)) : null;
  const button = el("button", { type: "button", "aria-pressed": String(!hidden.has(run.id)), id: `key-${run.id}`, on: { click: () => {
    if (hidden.has(run.id)) hidden.delete(run.id); else hidden.add(run.id);
    button.setAttribute("aria-pressed", String(!hidden.has(run.id)));
    for (const plot of plots) plot.series.forEach((one, place) => { if (one.run === run.id) plot.setSeries(place, { show: !hidden.has(run.id) }); });
  } } }, swatch, run.name, group && group.setting.length < 40 ? el("span", { class: "soft" }, group.setting) : null);
  return el("li", {}, button);
}));

const verdict = () => {
  const lines = data.says;
  const title = data.how === "seeds" ? "What the seeds say" : data.how === "images" ? "What the images say" : "What can be said";
  const warning = data.same_images === false ? el("p", { class: "warning" }, "They were not all validated on the same images: small differences between their accuracies say nothing.")
    : data.same_images === null ? el("p", { class: "soft" }, "Whether all were validated on the same images is not recorded.") : null;
  return el("section", { class: `verdict ${data.how === "none" ? "unknown" : ""}`, id: "verdict", "aria-label": title }, el("h2", {}, title), lines.map((line) => el("p", {}, line)), warning,
    data.damaged.map((run) => el("p", { class: "warning" }, `${run.name} is damaged and left out (${run.why})`)));
};

const groups = () => {
  if (data.groups.length < 2) return null;
  const shown = data.groups.slice(0, 20);
  const draw = (width) => {
    const line = 26, left = Math.min(Math.max(...shown.map((group) => group.setting.length)) * 7 + 12, width * 0.5), height = shown.length * line + 40;
    const ends = shown.flatMap((group) => [group.mean, group.low, group.high]).filter((value) => value !== null);
    const room = (Math.max(...ends) - Math.min(...ends)) * 0.05;
    const scale = numericScale(Math.min(...ends) - room, Math.max(...ends) + room, left + 8, width - 64, { count: 4 });
    return svg("svg", { viewBox: `0 0 ${width} ${height}`, height },
      scale.ticks.map((tick) => [svg("line", { class: "grid", x1: scale.at(tick.value), x2: scale.at(tick.value), y1: 4, y2: shown.length * line + 4 }), svg("text", { x: scale.at(tick.value), y: shown.length * line + 20, "text-anchor": "middle" }, tick.text)]),
      shown.map((group, index) => {
        const y = index * line + line / 2 + 4;
        return svg("g", { class: index === 0 ? "best" : "" }, svg("title", {}, `${group.setting}: ${figure(group.mean)}, n = ${group.n}`),
          svg("text", { class: "name", x: left, y: y + 4, "text-anchor": "end" }, cut(group.setting, Math.floor((left - 8) / 6.9))),
          group.low !== null ? svg("line", { class: "bar", x1: scale.at(group.low), x2: scale.at(group.high), y1: y, y2: y }) : null,
          svg("circle", { class: "dot", cx: scale.at(group.mean), cy: y, r: 5 }),
          svg("text", { class: "name", x: width - 2, y: y + 4, "text-anchor": "end" }, figure(group.mean)));
      }));
  };
  return el("section", { class: "panel", id: "groups" }, el("h2", {}, "Settings with their spread over seeds"), el("p", { class: "soft" }, "Mean validation accuracy and its 95 % interval, best first."), responsive(el("div", { class: "chart" }), draw));
};

const table = (heads, rows, label, kind = "") => el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": label }, el("table", { class: `runs ${kind}` },
  el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col", class: head.number ? "number" : null }, head.title)))),
  el("tbody", {}, rows.map((row) => el("tr", {}, row.map((cell, place) => (place === 0 ? el("th", { scope: "row" }, cell) : el("td", { class: heads[place].number ? "number" : null }, cell))))))));

const figures = () => table(["run", "state", "validation accuracy", "95 % interval", "validation loss", "best epoch", "epochs", "test accuracy", "parameters", "time"].map((title, place) => ({ title, number: [2, 4, 5, 6, 7, 8, 9].includes(place) })),
  data.runs.map((run) => [el("a", { href: `/run/${run.id}` }, run.name), el("span", { class: `state ${run.state}` }, run.state), figure(run.val_accuracy),
    run.interval ? `${figure(run.interval[0])} to ${figure(run.interval[1])} (${number(run.num_val)} images)` : "–", figure(run.val_loss), number(run.best_epoch), number(run.epochs), figure(run.test_accuracy), number(run.num_parameters), duration(run.seconds)]), "Figures of the runs");

const differences = () => (data.differences.length === 0 ? el("p", {}, "No setting differs.")
  : table([{ title: "setting" }, ...data.runs.map((run) => ({ title: run.name }))], data.differences.map((row) => [row.key, ...row.values]), "Settings that differ", "differ"));

const pairs = () => {
  if (!data.pairs.length) return null;
  if (data.how === "images") {
    return [el("h2", {}, "Image by image"), el("p", { class: "soft" }, `Validation images, one by one, against ${data.pairs[0].against}; exact McNemar test, corrected for all pairs (Holm 1979).`),
      table(["run", "both right", `only ${data.pairs[0].against} right`, "only this one right", "both wrong", "p, corrected"].map((title, place) => ({ title, number: place > 0 })),
        data.pairs.map((pair) => [pair.run, number(pair.both_right), number(pair.only_best), number(pair.only_this), number(pair.both_wrong), pair.p_corrected.toPrecision(2)]), "Image by image")];
  }
  return [el("h2", {}, "Seed by seed"), el("p", { class: "soft" }, `Against ${data.pairs[0].against}; a positive difference means that it is the better one. Student's paired test, corrected for all pairs (Holm 1979).`),
    table(["setting", "difference", "95 % interval", "seeds", "p, corrected"].map((title, place) => ({ title, number: place > 0 })),
      data.pairs.map((pair) => [pair.run, figure(pair.difference), pair.low === null ? "–" : `${figure(pair.low)} to ${figure(pair.high)}`, number(pair.n), pair.p_corrected.toPrecision(2)]), "Seed by seed")];
};

const redraw = () => {
  const focus = document.activeElement && document.activeElement.id;
  for (const plot of plots) plot.destroy();
  plots = [];
  document.getElementById("about").textContent = `${data.runs.length} runs${data.damaged.length ? `, ${data.damaged.length} damaged` : ""}`;
  const some = data.curves.some((run) => run.epochs.length);
  const scale = el("label", { class: "pick" }, el("input", { type: "checkbox", id: "log", checked: log, on: { change: (event) => { log = event.target.checked; redraw(); } } }), " loss on a log scale");
  box.replaceChildren(...[
    data.runs.length > 1 ? verdict() : data.damaged.map((run) => el("p", { class: "warning" }, `${run.name} is damaged and left out (${run.why})`)),
    some ? el("section", { class: "panel full", "aria-label": "Curves" }, el("h2", {}, "Curves"), el("p", { class: "soft" }, "Validation solid, training dotted. Press a name to hide or show it."), keys(), el("div", { class: "curves" }, PAIRS.map(([measure, label]) => curves(measure, label))), scale)
      : el("p", { class: "soft" }, "No epoch is recorded yet in these runs."),
    groups(), el("h2", {}, "Figures"), figures(), pairs(), el("h2", {}, "Settings that differ"), differences()].flat().filter(Boolean));
  if (focus && document.getElementById(focus)) document.getElementById(focus).focus({ preventScroll: true });
};

if (box) {
  follow(`/api/compare?${box.dataset.query}`, (found) => { data = found; redraw(); }, (line) => {
    const problem = document.getElementById("problem");
    problem.textContent = line;
    problem.hidden = !line;
  });
  addEventListener("theme", () => { if (data) redraw(); });
}
