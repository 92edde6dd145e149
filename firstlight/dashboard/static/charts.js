// Line charts by uPlot in the colours of the page: drawChart(figure, {series: [{label, x, y, color, faint, points}], ...}).
const charts = new Map();

export function color(name) {
  const probe = document.createElement("span");
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

const faded = (rgb) => rgb.replace(/^rgb\((.*)\)$/, (_, parts) => `rgba(${parts.replaceAll(" ", ", ").replaceAll(",,", ",")}, 0.6)`);

export const short = (value) => {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(size >= 1e6 ? 1 : 2).replace("e+", "e");
  return size >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(4)));
};

// Exponential moving average as of the weights of an optimizer, without the bias of its beginning.
export function smooth(values, weight) {
  if (!weight) return values;
  let mean = 0, norm = 0;
  return values.map((value) => {
    if (value === null) return null;
    mean = weight * mean + (1 - weight) * value;
    norm = weight * norm + 1 - weight;
    return mean / norm;
  });
}

// The curves on the steps of all of them.
function joined(series) {
  const places = [...new Set(series.flatMap((one) => one.x))].sort((a, b) => a - b);
  const at = new Map(places.map((place, index) => [place, index]));
  const columns = series.map((one) => {
    const column = new Array(places.length).fill(null);
    one.x.forEach((place, index) => { column[at.get(place)] = one.y[index]; });
    return column;
  });
  return [places, ...columns];
}

export function drawChart(figure, { series, log = false, xLabel = "step", height = 240, range = null }) {
  const data = joined(series);
  const shape = JSON.stringify([series.map((one) => [one.label, one.color, one.faint]), log, document.documentElement.dataset.theme]);
  const known = charts.get(figure);
  if (known && known.shape === shape && known.dark === color("ink")) {
    const scale = known.plot.scales.x;
    const zoomed = known.zoomed && scale.min !== null;
    known.plot.setData(data, !zoomed);
    return known.plot;
  }
  known?.plot.destroy();
  const [ink, soft, line] = [color("ink"), color("soft"), color("line")];
  const axis = { stroke: soft, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 }, font: "12px system-ui, sans-serif" };
  const options = {
    width: Math.max(figure.clientWidth, 200),
    height,
    cursor: { sync: { key: "steps" }, focus: { prox: 24 }, points: { size: 7 } },
    scales: { x: { time: false }, y: { distr: log ? 3 : 1, ...(range ? { range } : {}) } },
    axes: [
      { ...axis, values: (_, ticks) => ticks.map((tick) => (Number.isInteger(tick) ? tick.toLocaleString("en") : "")), size: 34 },
      { ...axis, values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : short(tick))), size: 58 },
    ],
    legend: { live: true },
    series: [
      { label: xLabel, value: (_, value) => (value === null ? "–" : value.toLocaleString("en")) },
      ...series.map((one) => {
        const stroke = color(one.color);
        return {
          label: one.label, stroke: one.faint ? faded(stroke) : stroke, width: one.faint ? 1 : 2, spanGaps: true,
          points: { show: !one.faint && one.x.length < 60, size: 5, fill: stroke }, value: (_, value) => short(value),
        };
      }),
    ],
    hooks: {
      setSelect: [(plot) => { const entry = charts.get(figure); if (entry && plot.select.width) entry.zoomed = true; }],
    },
  };
  const plot = new window.uPlot(options, data, figure);
  plot.over.addEventListener("dblclick", () => { charts.get(figure).zoomed = false; });
  plot.root.setAttribute("role", "img");
  plot.root.setAttribute("aria-label", series.map((one) => `${one.label}: last ${short(one.y.findLast((value) => value !== null))}`).join("; "));
  charts.set(figure, { plot, shape, dark: ink, zoomed: false });
  return plot;
}

new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const known = charts.get(target);
    if (known && Math.abs(known.plot.width - target.clientWidth) > 1) known.plot.setSize({ width: target.clientWidth, height: known.plot.height });
  }
}).observe(document.documentElement);

addEventListener("resize", () => {
  for (const [figure, { plot }] of charts) if (figure.clientWidth && plot.width !== figure.clientWidth) plot.setSize({ width: figure.clientWidth, height: plot.height });
});
