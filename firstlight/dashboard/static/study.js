// A study: the answer first, then the charts and the table behind it. Drawn from /api/study/ID, and again whenever a trial ended.
import { cut, duration, el, figure, follow, heat, number, numericScale, parameterScale, responsive, spaced, svg } from "/static/draw.js";

const page = document.getElementById("study");
const id = page.dataset.id;
const VERDICTS = { best: "best", worse: "worse, beyond seed noise", open: "not told apart from the best", unknown: "too few seeds to say", none: "no figure" };
const NAMES = { val_accuracy: "validation accuracy", val_loss: "validation loss" };
const SHOWN_RANKS = 12, SHOWN_ROWS = 100;
const chosen = { response: null, rows: null, columns: null, sort: "rank", up: true, all: false };
let data = null;

const objective = () => NAMES[data.objective] || data.objective;
const isUp = () => data.direction === "max";
const runOf = (trial) => `/run/${trial.id}`;
const better = (a, b) => (b === null ? true : a === null ? false : isUp() ? a > b : a < b);

// The answer ---------------------------------------------------------------------------------------------------------------------------

const answer = () => {
  const found = data.verdict, box = document.getElementById("verdict");
  box.className = `verdict ${found.sure}`;
  const badge = el("span", { class: `sure ${found.sure}` }, found.word);
  if (found.sure === "nothing") return box.replaceChildren(badge, el("p", { class: "best" }, found.says), progress());
  const interval = found.low === null || found.low === undefined ? " (one seed, so no interval)" : ` (95 % interval ${figure(found.low)} to ${figure(found.high)}, ${found.n} seeds)`;
  const point = data.points.find((one) => one.verdict === "best") || data.points[0];
  return box.replaceChildren(
    badge,
    el("p", { class: "best" }, el("small", {}, found.so_far ? "best setting so far" : "best setting"), found.setting),
    el("p", { class: "figure" }, el("strong", {}, figure(found.mean)), ` ${objective()}`, el("span", { class: "soft" }, interval)),
    el("p", { class: "says" }, el("strong", {}, "How sure: "), found.says),
    ...(found.advice ? [el("p", { class: "says soft" }, found.advice)] : []),
    progress(),
    el("div", { class: "tools" }, point ? el("button", { type: "button", id: "open-best", on: { click: () => behind(found.setting, [point]) } }, "Open its runs") : null),
  );
};

const progress = () => {
  const { done, planned, states } = data.progress;
  const words = Object.entries(states).map(([state, count]) => `${count} ${state}`).join(", ");
  const bar = planned ? el("progress", { max: planned, value: done, "aria-label": "trials that ended" }) : null;
  const state = data.state === "stopped" ? "interrupted" : data.state;
  return el("div", { class: "progress" },
    el("span", { class: `state ${state}` }, data.state),
    bar, el("span", {}, planned ? `${done} of ${planned} trials` : `${done} trials`),
    el("span", { class: "soft" }, `${words}${words ? "; " : ""}${duration(data.seconds)} of training`));
};

// The runs behind a point, a cell or a line --------------------------------------------------------------------------------------------

const behind = (title, points) => {
  const trials = points.flatMap((point) => point.trials);
  if (trials.length === 1) return location.assign(runOf(trials[0]));
  const list = points.map((point) => [
    points.length > 1 ? el("h3", {}, point.setting) : null,
    el("p", { class: "soft" }, point.mean === null ? "no trial ended with a figure" : `mean ${figure(point.mean)} over ${point.n} seed${point.n === 1 ? "" : "s"}; ${VERDICTS[point.verdict]}`),
    el("ul", {}, point.trials.map((trial) => el("li", {}, trialLink(trial), trial.why ? el("span", { class: "soft" }, ` ${trial.why}`) : null))),
  ]);
  document.getElementById("behind-title").textContent = title;
  const together = trials.filter((trial) => trial.objective !== null).slice(0, 20);
  const query = together.map((trial) => `runs=${trial.id}`).join("&");
  document.getElementById("behind-list").replaceChildren(...list.flat().filter(Boolean),
    together.length > 1 ? el("p", {}, el("a", { href: `/compare?${query}` }, `Compare ${together.length === trials.length ? "these" : "the first"} ${together.length} runs`)) : "");
  return document.getElementById("behind").showModal();
};

const trialLink = (trial) => el("a", { href: runOf(trial), title: `run ${trial.trial}` },
  `seed ${trial.seed}: ${trial.objective === null ? trial.state : figure(trial.objective)}`);

// Charts -------------------------------------------------------------------------------------------------------------------------------

const panel = (title, about, content, { full = false, key = "" } = {}) => el("section", { class: `panel${full ? " full" : ""}`, "aria-label": title, id: key || null },
  el("h2", {}, title), about ? el("p", { class: "soft" }, about) : null, content);
const chart = (draw, label) => responsive(el("div", { class: "chart", role: "group", "aria-label": label }), draw);

const extent = (points) => {
  const all = points.flatMap((point) => [point.mean, point.low, point.high, ...point.trials.map((trial) => trial.objective)]).filter((value) => value !== null && value !== undefined);
  const low = Math.min(...all), high = Math.max(...all), room = (high - low) * 0.06 || 0.01;
  return [low - room, data.objective === "val_accuracy" ? Math.min(high + room, 1 + room / 2) : high + room];
};

const ranks = () => {
  const shown = data.points.filter((point) => point.mean !== null).slice(0, SHOWN_RANKS);
  if (shown.length < 2) return null;
  const draw = (width) => {
    const isNarrow = width < 560; // then a setting stands above its bar
    const left = isNarrow ? 4 : Math.min(Math.max(...shown.map((point) => point.setting.length)) * 7.8 + 14, width * 0.45), line = isNarrow ? 42 : 26;
    const height = shown.length * line + 46, scale = numericScale(...extent(shown), left + 8, width - 66, { count: width > 500 ? 6 : 3 });
    const most = Math.floor((isNarrow ? width - 4 : left - 10) / 7.7); // the best stands in bold
    return svg("svg", { viewBox: `0 0 ${width} ${height}`, height },
      scale.ticks.map((tick) => [svg("line", { class: "grid", x1: scale.at(tick.value), x2: scale.at(tick.value), y1: 6, y2: shown.length * line + 6 }),
        svg("text", { x: scale.at(tick.value), y: shown.length * line + 22, "text-anchor": "middle" }, tick.text)]),
      svg("text", { x: width / 2, y: height - 6, "text-anchor": "middle" }, `${objective()}, mean and 95 % interval`),
      shown.map((point, index) => {
        const y = index * line + line / 2 + (isNarrow ? 15 : 6);
        return svg("g", { class: point.verdict },
          svg("title", {}, `${point.setting}: ${figure(point.mean)}, ${VERDICTS[point.verdict]}`),
          svg("text", { class: "name", x: isNarrow ? 4 : left, y: isNarrow ? y - 13 : y + 4, "text-anchor": isNarrow ? "start" : "end" }, cut(point.setting, most)),
          point.low !== null ? svg("line", { class: "bar", x1: scale.at(point.low), x2: scale.at(point.high), y1: y, y2: y }) : null,
          point.trials.filter((trial) => trial.objective !== null).map((trial) => svg("a", { href: runOf(trial), "aria-label": `${point.setting}, seed ${trial.seed}: ${figure(trial.objective)}` },
            svg("circle", { class: "trial", cx: scale.at(trial.objective), cy: y, r: 3.6 }, svg("title", {}, `seed ${trial.seed}: ${figure(trial.objective)}`)))),
          svg("circle", { class: "dot", cx: scale.at(point.mean), cy: y, r: 5 }),
          svg("text", { class: "name", x: width - 2, y: y + 4, "text-anchor": "end" }, figure(point.mean)));
      }));
  };
  const more = data.num_points > shown.length ? `The ${shown.length} best of ${data.num_points} settings. ` : "";
  return panel("Settings, best first", `${more}The colours come from tests seed by seed, corrected for all comparisons.`,
    [chart(draw, "settings with their intervals"), el("p", { class: "legend" }, el("span", { class: "key kgood" }, "best"), el("span", { class: "key kwarn" }, "not told apart from it"),
      el("span", { class: "key ksoft" }, "worse, beyond seed noise"), el("span", { class: "key k2" }, "one seed: click for its run"))], { key: "ranks" });
};

const bestAt = (points) => points.reduce((best, point) => (point.mean !== null && (best === null || better(point.mean, best.mean)) ? point : best), null);

const response = () => {
  const keys = data.parameters.map((parameter) => parameter.key);
  if (!keys.includes(chosen.response)) chosen.response = (data.importance && data.importance.names[0]) || keys[0];
  const parameter = data.parameters.find((one) => one.key === chosen.response);
  const single = data.parameters.length === 1;
  const draw = (width) => {
    const height = Math.max(220, Math.min(320, width * 0.5)), left = 58, right = width - 14, bottom = height - 44;
    const across = parameterScale(parameter, left + 14, right - 10, Math.max(2, Math.floor((right - left) / 80)));
    const done = data.points.filter((point) => point.mean !== null);
    if (!done.length) return svg("svg", { viewBox: `0 0 ${width} 40`, height: 40 }, svg("text", { x: 4, y: 24 }, "no trial ended with a figure yet"));
    const up = numericScale(...extent(done), bottom, 10, { count: 5 });
    const columns = parameter.values.map((value) => ({ text: value.text, x: across.at(value.text), points: data.points.filter((point) => point.values[parameter.key] === value.text) }));
    const means = columns.map((column) => ({ ...column, best: bestAt(column.points) }));
    const there = means.filter((column) => column.best !== null);
    const isLine = single || 2 * there.length <= done.length; // where hardly any value was drawn twice, a line would only join neighbours
    return svg("svg", { viewBox: `0 0 ${width} ${height}`, height },
      up.ticks.map((tick) => [svg("line", { class: "grid", x1: left, x2: right, y1: up.at(tick.value), y2: up.at(tick.value) }),
        svg("text", { x: left - 8, y: up.at(tick.value) + 4, "text-anchor": "end" }, tick.text)]),
      spaced(across.ticks, 0).map((tick) => svg("text", { x: tick.at, y: bottom + 18, "text-anchor": "middle" }, cut(tick.text, 16))),
      svg("text", { class: "name", x: (left + right) / 2, y: height - 6, "text-anchor": "middle" }, `${parameter.key}${parameter.log && parameter.numeric ? " (log scale)" : ""}`),
      means.filter((column) => column.points.length && column.best === null).map((column) => svg("line", { class: "none", x1: column.x, x2: column.x, y1: 10, y2: bottom }, svg("title", {}, `${column.text}: no trial ended with a figure`))),
      columns.flatMap((column) => column.points.flatMap((point) => point.trials.filter((trial) => trial.objective !== null).map((trial) =>
        svg("a", { href: runOf(trial), "aria-label": `${point.setting}, seed ${trial.seed}: ${figure(trial.objective)}` },
          svg("circle", { class: "trial", cx: column.x, cy: up.at(trial.objective), r: 4 }, svg("title", {}, `${point.setting}, seed ${trial.seed}: ${figure(trial.objective)}`)))))),
      isLine ? svg("polyline", { class: "mean", points: there.map((column) => `${column.x},${up.at(column.best.mean)}`).join(" ") }) : null,
      there.map((column) => [
        column.best.low !== null ? svg("path", { class: "bar", d: `M${column.x} ${up.at(column.best.low)}V${up.at(column.best.high)}M${column.x - 5} ${up.at(column.best.low)}h10M${column.x - 5} ${up.at(column.best.high)}h10` }) : null,
        svg("circle", { class: "dot", cx: column.x, cy: up.at(column.best.mean), r: 5 }, svg("title", {}, `${column.best.setting}: mean ${figure(column.best.mean)}, n = ${column.best.n}`))]));
  };
  const about = single ? "Each seed as a dot, the mean as a line, a bar for its 95 % interval over seeds."
    : "Each trial as a dot; blue is the best setting at each value, with its 95 % interval over seeds.";
  const pick = single ? null : el("div", { class: "picks" }, select("Over", keys, chosen.response, (key) => { chosen.response = key; redraw(); }));
  return panel("Response", about, [pick, chart(draw, `${objective()} over ${parameter.key}`),
    el("p", { class: "legend" }, el("span", { class: "key k1" }, single ? "mean" : "best setting at this value"), el("span", { class: "key k2" }, "one trial: click for its run"))], { key: "response" });
};

const select = (label, keys, value, change) => el("label", { class: "pick" }, `${label} `,
  el("select", { on: { change: (event) => change(event.target.value) }, "data-pick": label }, keys.map((key) => el("option", { value: key, selected: key === value }, key))));

const map = () => {
  const keys = data.parameters.map((parameter) => parameter.key);
  if (keys.length < 2) return null;
  const ranked = data.importance ? [...data.importance.names, ...keys] : keys;
  const order = [...new Set(ranked)].filter((key) => keys.includes(key));
  if (!keys.includes(chosen.rows) || !keys.includes(chosen.columns) || chosen.rows === chosen.columns) [chosen.columns, chosen.rows] = order;
  const [across, down] = [chosen.columns, chosen.rows].map((key) => data.parameters.find((one) => one.key === key));
  const cells = new Map();
  for (const point of data.points) {
    const place = `${point.values[down.key]}\n${point.values[across.key]}`;
    cells.set(place, [...(cells.get(place) || []), point]);
  }
  const figures = [...cells.values()].map(bestAt).filter((point) => point !== null).map((point) => point.mean);
  if (!figures.length) return null;
  const low = Math.min(...figures), high = Math.max(...figures), best = isUp() ? high : low;
  const tooMany = across.values.length * down.values.length > 2500;
  const pick = el("div", { class: "picks" },
    select("Columns", keys, across.key, (key) => { if (key === chosen.rows) chosen.rows = chosen.columns; chosen.columns = key; redraw(); }),
    select("Rows", keys, down.key, (key) => { if (key === chosen.columns) chosen.columns = chosen.rows; chosen.rows = key; redraw(); }));
  const sparse = cells.size * 3 < across.values.length * down.values.length;
  if (tooMany || sparse) {
    return panel("Heat map", `${down.key} by ${across.key} fill too few cells for a map (${cells.size} of ${across.values.length * down.values.length}); choose two parameters with few values, or see the parallel lines.`, pick, { key: "map" });
  }
  const cell = (row, column) => {
    const points = cells.get(`${row.text}\n${column.text}`);
    if (!points) return el("td", {}, el("span", { class: "empty", title: "not tried" }, ""));
    const top = bestAt(points);
    const about = `${down.key}=${row.text} ${across.key}=${column.text}`;
    const button = el("button", { type: "button", on: { click: () => behind(about, points) }, "aria-label": `${about}: ${top === null ? "no figure" : number(top.mean)}; open its runs`,
      title: top === null ? `${about}: no trial ended with a figure` : `${top.setting}: ${number(top.mean)}, n = ${top.n}`, class: top !== null && top.mean === best ? "best" : null },
      top === null ? "none" : number(top.mean, 3));
    if (top !== null) {
      const share = high > low ? (top.mean - low) / (high - low) : 1;
      const { color, ink } = heat(isUp() ? share : 1 - share);
      button.style.backgroundColor = color;
      button.style.color = ink;
    }
    return el("td", {}, button);
  };
  const rows = down.numeric ? [...down.values].reverse() : down.values;
  const table = el("div", { class: "wide map", tabindex: "0", role: "region", "aria-label": "Heat map" }, el("table", {},
    el("thead", {}, el("tr", {}, el("td", {}), el("th", { class: "across", colspan: across.values.length, scope: "colgroup" }, `${across.key} →`)),
      el("tr", {}, el("th", { scope: "col" }, `${down.key} ↓`), across.values.map((value) => el("th", { scope: "col" }, cut(value.text, 18))))),
    el("tbody", {}, rows.map((row) => el("tr", {}, el("th", { scope: "row" }, cut(row.text, 18)), across.values.map((column) => cell(row, column)))))));
  const worst = number(isUp() ? low : high, 3), ends = number(best, 3);
  const rest = keys.length > 2 ? "the best setting of each cell, whatever the other parameters were" : "the mean over seeds";
  return panel("Heat map", `${objective()}: ${rest}. A click on a cell opens the runs behind it.`,
    [pick, table, el("p", { class: "legend" }, `${worst} `, el("span", { class: "ramp", "aria-hidden": "true" }), ` ${ends} (best, framed)`)], { key: "map" });
};

const parallel = () => {
  if (data.parameters.length < 2) return null;
  const done = data.points.filter((point) => point.mean !== null).slice(0, 400);
  if (done.length < 2) return null;
  const low = Math.min(...done.map((point) => point.mean)), high = Math.max(...done.map((point) => point.mean));
  const draw = (width) => {
    const height = 300, top = 34, bottom = height - 14, left = 46, right = width - 58;
    const axes = [...data.parameters.map((parameter) => ({ title: parameter.key, scale: parameterScale(parameter, bottom, top, 7), at: (point) => (point.values[parameter.key] === undefined ? null : point.values[parameter.key]) })),
      { title: objective(), scale: null, at: null }];
    const result = numericScale(low, high, isUp() ? bottom : top, isUp() ? top : bottom, { count: 6 });
    const gap = (right - left) / (axes.length - 1);
    const letters = Math.max(4, Math.floor(gap / 7.2));
    const path = (point) => axes.map((axis, index) => {
      const y = axis.scale === null ? result.at(point.mean) : axis.at(point) === null ? bottom + 8 : axis.scale.at(axis.at(point));
      return `${left + gap * index},${y}`;
    }).join(" ");
    const lines = [...done].reverse().map((point) => {
      const share = high > low ? (point.mean - low) / (high - low) : 1;
      const line = svg("polyline", { class: `line${point.verdict === "best" ? " best" : ""}`, points: path(point), stroke: heat(isUp() ? share * 0.92 : (1 - share) * 0.92).color },
        svg("title", {}, `${point.setting}: ${figure(point.mean)}`));
      return svg("a", { href: point.trials.length === 1 ? runOf(point.trials[0]) : "#", "aria-label": `${point.setting}: ${figure(point.mean)}; open its runs`,
        on: { click: (event) => { event.preventDefault(); behind(point.setting, [point]); } } }, line);
    });
    return svg("svg", { viewBox: `0 0 ${width} ${height}`, height }, lines, axes.map((axis, index) => {
      const x = left + gap * index;
      const ticks = axis.scale === null ? result.ticks.map((tick) => ({ at: result.at(tick.value), text: tick.text })) : axis.scale.ticks;
      const end = index === axes.length - 1;
      return [svg("line", { class: "axis", x1: x, x2: x, y1: top - 4, y2: bottom + 4 }),
        svg("text", { class: "name", x: index === 0 ? 2 : end ? width - 2 : x, y: 16, "text-anchor": index === 0 ? "start" : end ? "end" : "middle" }, svg("title", {}, axis.title), cut(axis.title, letters)),
        ticks.filter((tick, place) => ticks.length <= 14 || place % Math.ceil(ticks.length / 14) === 0).map((tick) => svg("text", { x: end ? x + 6 : x - 6, y: tick.at + 4, "text-anchor": end ? "start" : "end" }, cut(tick.text, end ? 8 : Math.max(6, Math.floor(letters * 0.7)))))];
    }));
  };
  return panel("Parallel lines", `Each line is a setting: its value of every parameter, and its mean ${objective()}. Bright is better; a click opens its runs.`, chart(draw, "parallel coordinates"), { full: true, key: "parallel" });
};

const importance = () => {
  const found = data.importance;
  if (!found) return null;
  const draw = (width) => {
    const line = 30, left = Math.min(Math.max(...found.names.map((key) => key.length)) * 7.4 + 12, width * 0.45), height = found.names.length * line + 34;
    const scale = numericScale(0, Math.max(...found.high, ...(found.chance || []), 0.01), left, width - 54, { count: 4 });
    return svg("svg", { viewBox: `0 0 ${width} ${height}`, height },
      scale.ticks.map((tick) => [svg("line", { class: "grid", x1: scale.at(tick.value), x2: scale.at(tick.value), y1: 4, y2: height - 28 }), svg("text", { x: scale.at(tick.value), y: height - 12, "text-anchor": "middle" }, tick.text)]),
      found.names.map((key, index) => {
        const y = index * line + 8, share = Math.max(found.shares[index], 0);
        return [svg("text", { class: "name", x: left - 8, y: y + 14, "text-anchor": "end" }, cut(key, Math.floor((left - 10) / 7))),
          svg("rect", { class: "share", x: scale.at(0), y, width: Math.max(scale.at(share) - scale.at(0), 1), height: 18, rx: 2 }, svg("title", {}, `${key}: ${number(found.shares[index], 2)}`)),
          svg("line", { class: "whisker", x1: scale.at(Math.max(found.low[index], 0)), x2: scale.at(Math.max(found.high[index], 0)), y1: y + 9, y2: y + 9 }),
          found.chance ? svg("line", { class: "chance", x1: scale.at(found.chance[index]), x2: scale.at(found.chance[index]), y1: y - 3, y2: y + 21 }, svg("title", {}, "what a parameter without effect would have")) : null,
          svg("text", { class: "name", x: width - 2, y: y + 14, "text-anchor": "end" }, number(found.shares[index], 2))];
      }));
  };
  return panel("What mattered", `${found.method}. ${found.remark}.`, [chart(draw, "importance of the parameters"), found.chance ? el("p", { class: "legend" }, el("span", { class: "key k2" }, "dashed: what a parameter without effect would have")) : null], { key: "importance" });
};

// The table ----------------------------------------------------------------------------------------------------------------------------

const table = () => {
  const columns = [{ key: "rank", title: "rank", number: true, value: (point) => point.rank },
    ...data.parameters.map((parameter) => ({ key: parameter.key, title: parameter.key, number: parameter.numeric, show: (point) => (point.values[parameter.key] === undefined ? "–" : point.values[parameter.key]),
      value: (point) => parameter.values.findIndex((value) => value.text === point.values[parameter.key]) })),
    { key: "mean", title: `mean ${objective()}`, number: true, value: (point) => point.mean, show: (point) => figure(point.mean) },
    { key: "interval", title: "95 % interval", value: (point) => (point.low === null ? null : point.high - point.low), show: (point) => (point.low === null ? "–" : `${figure(point.low)} to ${figure(point.high)}`) },
    { key: "n", title: "seeds", number: true, value: (point) => point.n },
    { key: "p", title: "p, corrected", number: true, value: (point) => point.p, show: (point) => (point.p === null ? "–" : point.p.toPrecision(2)) },
    { key: "verdict", title: "beside the best", value: (point) => point.verdict, show: (point) => VERDICTS[point.verdict] }];
  const column = columns.find((one) => one.key === chosen.sort) || columns[0];
  const points = data.points.map((point, index) => ({ ...point, rank: index + 1 }));
  points.sort((a, b) => {
    const [x, y] = [column.value(a), column.value(b)];
    if (x === null || y === null) return (x === null) - (y === null);
    return (x < y ? -1 : x > y ? 1 : 0) * (chosen.up ? 1 : -1) || a.rank - b.rank;
  });
  const shown = chosen.all ? points : points.slice(0, SHOWN_ROWS);
  const sort = (key) => { chosen.up = chosen.sort === key ? !chosen.up : true; chosen.sort = key; redraw(`sort-${key}`); };
  const head = el("tr", {}, columns.map((one) => el("th", { scope: "col", class: one.number ? "number" : null, "aria-sort": one.key === chosen.sort ? (chosen.up ? "ascending" : "descending") : null },
    el("button", { type: "button", id: `sort-${one.key}`, on: { click: () => sort(one.key) } }, one.title))), el("th", { scope: "col" }, "runs"));
  const body = shown.map((point) => el("tr", {}, columns.map((one) => el("td", { class: one.number ? "number" : null }, one.show ? one.show(point) : String(one.value(point)))),
    el("td", {}, el("span", { class: "trials" }, point.trials.slice(0, 10).map(trialLink), point.trials.length > 10 ? el("button", { type: "button", on: { click: () => behind(point.setting, [point]) } }, `all ${point.trials.length}`) : null))));
  const more = data.num_points > data.points.length ? ` Only the best ${data.points.length} of ${data.num_points} are here; hparams.csv has all.` : "";
  return panel("All settings", `A row a setting; each seed leads to its run.${more}`, [
    el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Table of settings" }, el("table", { class: "runs points" }, el("thead", {}, head), el("tbody", {}, body))),
    points.length > shown.length ? el("p", {}, el("button", { type: "button", on: { click: () => { chosen.all = true; redraw(); } } }, `Show all ${points.length}`)) : null], { full: true, key: "settings" });
};

const underWay = () => {
  if (!data.running.length) return null;
  return panel("Training now", "", el("ul", { class: "says-list" }, data.running.map((trial) => el("li", {}, el("a", { href: `/run/${trial.id}` }, trial.setting || trial.trial), ` seed ${trial.seed}`,
    el("span", { class: "soft" }, trial.epoch === null ? ", begun" : `, epoch ${trial.epoch}${trial.epochs ? ` of ${trial.epochs}` : ""}, validation accuracy ${figure(trial.val_accuracy)}`)))), { full: true, key: "running" });
};

const words = () => panel("In words", "", el("ul", { class: "says-list" }, data.findings.map((line) => el("li", {}, line))), { full: true, key: "findings" });

const redraw = (focus = null) => {
  const before = focus || (document.activeElement && document.activeElement.id);
  const pick = document.activeElement && document.activeElement.dataset.pick;
  if (data.state === "damaged") {
    document.getElementById("verdict").replaceChildren(el("p", { class: "problem" }, `This study cannot be read: ${data.damage}`));
    return document.getElementById("rest").replaceChildren();
  }
  document.getElementById("about").textContent = `varies ${data.parameters.map((parameter) => parameter.key).join(", ")} on ${data.base}; ${data.sampler}, ${data.seeds} seed${data.seeds === 1 ? "" : "s"} a setting`;
  answer();
  document.getElementById("rest").replaceChildren(
    ...data.warnings.map((line) => el("p", { class: "warning" }, line)),
    el("div", { class: "panels" }, underWay(), data.points.length ? [ranks(), response(), map(), importance(), parallel(), table()] : null, data.points.length ? words() : null));
  const again = before ? document.getElementById(before) : pick ? document.querySelector(`[data-pick="${pick}"]`) : null;
  if (again) again.focus({ preventScroll: true });
  return undefined;
};

follow(`/api/study/${id}`, (found) => { data = found; redraw(); }, (line) => {
  const problem = document.getElementById("problem");
  problem.textContent = line;
  problem.hidden = !line;
});
