// What was looked at in a run: a confusion matrix whose cells open their images, calibration, mistakes, uncertainty, and pictures of all else.
import { cut, el, getJson, number, numericScale, responsive, svg } from "/static/draw.js";

const box = document.getElementById("inspection");
const id = box.dataset.id;
const MANY = 20, SHOWN_ROWS = 50;
const file = (name) => `/run/${id}/file/${encodeURIComponent(name)}`;
const percent = (share, digits = 1) => (share === null || share === undefined ? "–" : `${(100 * share).toFixed(digits)} %`);
let data = null;

// Images -------------------------------------------------------------------------------------------------------------------------------

const tile = (cells, place, about, size = 84) => {
  const scale = Math.max(1, Math.round(size / Math.max(cells.tile_height, cells.tile_width)));
  const node = el("span", { class: "tile", role: "img", "aria-label": about });
  const rows = Math.ceil(cells.images.length / cells.columns);
  node.style.width = `${cells.tile_width * scale}px`;
  node.style.height = `${cells.tile_height * scale}px`;
  node.style.backgroundImage = `url("${file(cells.picture)}")`;
  node.style.backgroundSize = `${cells.columns * cells.tile_width * scale}px ${rows * cells.tile_height * scale}px`;
  node.style.backgroundPosition = `-${(place % cells.columns) * cells.tile_width * scale}px -${Math.floor(place / cells.columns) * cells.tile_height * scale}px`;
  return node;
};

const openCell = (section, label, predicted) => {
  const found = section.drawn, names = found.class_names, count = found.matrix[label][predicted];
  const title = label === predicted ? `${names[label]}, recognised` : `${names[label]} taken for ${names[predicted]}`;
  const places = found.cells ? found.cells.images.map((image, place) => ({ ...image, place })).filter((image) => image.label === label && image.predicted === predicted) : [];
  document.getElementById("cell-title").textContent = `${title}: ${count} image${count === 1 ? "" : "s"}`;
  const why = label === predicted ? "least sure first" : "worst first";
  const parts = !found.cells ? [el("p", {}, "This inspection kept no images. Make it again, and they are here:"), el("pre", { class: "command" }, `firstlight inspect confusion ${data.path}${section.split && section.split !== "val" ? ` --split ${section.split}` : ""}`)]
    : [places.length < count ? el("p", { class: "soft" }, `${places.length} of ${count} are kept, ${why}.`) : el("p", { class: "soft" }, why),
      el("div", { class: "thumbs" }, places.map((image) => el("figure", {}, tile(found.cells, image.place, `image ${image.index}: ${names[label]}, taken for ${names[predicted]} with probability ${number(image.probability, 2)}`),
        el("figcaption", {}, `${names[predicted]} ${number(image.probability, 2)}`, el("br"), `#${image.index}`))))];
  document.getElementById("cell-images").replaceChildren(...parts);
  document.getElementById("cell").showModal();
};

// Confusion and calibration ------------------------------------------------------------------------------------------------------------

const matrix = (section) => {
  const { matrix: counts, class_names: names } = section.drawn, many = counts.length > MANY;
  const wrong = Math.max(1, ...counts.flatMap((row, label) => row.filter((_, predicted) => predicted !== label)));
  const cell = (label, predicted) => {
    const count = counts[label][predicted], total = counts[label].reduce((sum, value) => sum + value, 0);
    if (count === 0) return el("td", {}, el("span", { class: "zero" }, many ? "" : "0"));
    const about = label === predicted ? `${names[label]}: ${count} of ${total} recognised` : `${names[label]} taken for ${names[predicted]}: ${count} of ${total}`;
    const button = el("button", { type: "button", title: about, "aria-label": `${about}; show the images`, "data-cell": `${label},${predicted}`, on: { click: () => openCell(section, label, predicted) } }, String(count));
    if (label === predicted) {
      button.style.background = `color-mix(in srgb, var(--series-1) ${Math.round(10 + 35 * (count / total))}%, var(--paper))`;
    } else button.style.background = `color-mix(in srgb, var(--series-2) ${Math.round(12 + 30 * (count / wrong))}%, var(--paper))`;
    return el("td", {}, button);
  };
  return el("div", { class: "wide confusion", tabindex: "0", role: "region", "aria-label": "Confusion matrix" }, el("table", { class: many ? "many" : null },
    el("thead", {}, el("tr", {}, el("td", {}), el("th", { class: "corner", colspan: names.length, scope: "colgroup" }, "taken for →")),
      el("tr", {}, el("th", { scope: "col" }, "true ↓"), names.map((name) => el("th", { scope: "col", title: name }, cut(name, many ? 4 : 10))))),
    el("tbody", {}, counts.map((_, label) => el("tr", {}, el("th", { scope: "row", title: names[label] }, cut(names[label], 14)), counts.map((__, predicted) => cell(label, predicted)))))));
};

const reliability = (found) => {
  const draw = (width) => {
    const size = Math.min(width - 60, 300), left = 48, bottom = size + 8, height = size + 50;
    const across = numericScale(0, 1, left, left + size, { count: 5 }), up = numericScale(0, 1, bottom, 8, { count: 5 });
    const filled = found.bins.filter((bin) => bin.images > 0 && bin.accuracy !== null), most = Math.max(...filled.map((bin) => bin.images), 1);
    return svg("svg", { viewBox: `0 0 ${width} ${height}`, height },
      up.ticks.map((tick) => [svg("line", { class: "grid", x1: left, x2: left + size, y1: up.at(tick.value), y2: up.at(tick.value) }), svg("text", { x: left - 8, y: up.at(tick.value) + 4, "text-anchor": "end" }, tick.text)]),
      across.ticks.map((tick) => svg("text", { x: across.at(tick.value), y: bottom + 18, "text-anchor": "middle" }, tick.text)),
      filled.map((bin) => [svg("rect", { class: "share count", x: across.at(bin.above) + 1, width: Math.max(across.at(bin.up_to) - across.at(bin.above) - 2, 1), y: up.at(0.22 * (bin.images / most)), height: up.at(0) - up.at(0.22 * (bin.images / most)) },
        svg("title", {}, `${bin.images} images with a probability of ${number(bin.above, 2)} to ${number(bin.up_to, 2)}`)),
      svg("line", { class: "bar", x1: across.at(bin.confidence), x2: across.at(bin.confidence), y1: up.at(bin.confidence), y2: up.at(bin.accuracy) }),
      svg("circle", { class: "dot", cx: across.at(bin.confidence), cy: up.at(bin.accuracy), r: 3 + 4 * Math.sqrt(bin.images / most) }, svg("title", {}, `said ${number(bin.confidence, 3)}, right ${number(bin.accuracy, 3)}, ${bin.images} images`))]),
      svg("line", { class: "ideal", x1: across.at(0), y1: up.at(0), x2: across.at(1), y2: up.at(1) }),
      svg("text", { class: "name", x: left + size / 2, y: bottom + 36, "text-anchor": "middle" }, "probability that the network gave"),
      svg("text", { class: "name", x: 12, y: 8 + size / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${8 + size / 2})` }, "share that was right"));
  };
  return el("div", { class: "panel" }, el("h2", {}, "Can its probabilities be trusted?"),
    el("p", { class: "soft" }, "On the dashed line they are right; below it the network is too sure, above it not sure enough. Grey: how many images."),
    responsive(el("div", { class: "chart", role: "img", "aria-label": `reliability: calibration error ${percent(found.ece, 2)}` }), draw),
    el("p", { class: "figures" }, fact("calibration error", percent(found.ece, 2)), fact("largest gap", percent(found.mce, 1)), fact("Brier score", number(found.brier)),
      found.temperature !== null ? fact("at temperature", `${number(found.temperature, 3)}: ${percent(found.before.ece, 2)} → ${percent(found.after.ece, 2)}`) : null),
    found.temperature_says ? el("p", { class: "soft" }, `Temperature ${found.temperature === null ? "not fitted: " : ""}${found.temperature_says}.`) : null);
};

const fact = (name, value) => el("span", {}, `${name} `, el("strong", {}, value));

const selective = (found) => {
  const points = found.curve.filter(([coverage, risk]) => coverage !== null && risk !== null);
  const draw = (width) => {
    const height = 250, left = 52, right = width - 12, bottom = height - 44;
    const across = numericScale(0, 1, left, right, { count: 5 }), up = numericScale(0, Math.max(...points.map(([, risk]) => risk), 0.001) * 1.05, bottom, 8, { count: 5 });
    return svg("svg", { viewBox: `0 0 ${width} ${height}`, height },
      up.ticks.map((tick) => [svg("line", { class: "grid", x1: left, x2: right, y1: up.at(tick.value), y2: up.at(tick.value) }), svg("text", { x: left - 8, y: up.at(tick.value) + 4, "text-anchor": "end" }, percent(tick.value))]),
      across.ticks.map((tick) => svg("text", { x: across.at(tick.value), y: bottom + 18, "text-anchor": "middle" }, percent(tick.value, 0))),
      svg("polyline", { class: "mean", points: points.map(([coverage, risk]) => `${across.at(coverage)},${up.at(risk)}`).join(" ") }),
      svg("text", { class: "name", x: (left + right) / 2, y: height - 6, "text-anchor": "middle" }, "share of images answered, the surest first"));
  };
  return el("div", { class: "panel" }, el("h2", {}, "Errors, if only the sure answers count"), el("p", { class: "soft" }, `${found.says}.`), responsive(el("div", { class: "chart", role: "img", "aria-label": found.says }), draw));
};

const table = (heads, rows, label) => el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": label }, el("table", { class: "runs" },
  el("thead", {}, el("tr", {}, heads.map(([title, numeric]) => el("th", { scope: "col", class: numeric ? "number" : null }, title)))),
  el("tbody", {}, rows.map((row) => el("tr", {}, row.map((value, place) => el("td", { class: heads[place][1] ? "number" : null }, value)))))));

const confusion = (section) => {
  const found = section.drawn;
  const classes = found.classes.length ? table([["class"], ["images", true], ["precision", true], ["recall", true], ["F1", true]],
    found.classes.map((row) => [String(row.class), number(row.images), number(row.precision, 3), number(row.recall, 3), number(row.f1, 3)]), "Scores of the classes") : null;
  const worst = found.pairs.length ? el("p", {}, "Most often: ", found.pairs.slice(0, 5).map((pair, place) => [place ? ", " : "", `${pair.label} taken for ${pair.predicted} (${pair.images})`])) : null;
  return [el("div", { class: "panels" },
    el("div", { class: "panel" }, el("h2", {}, "Which class is taken for which"), el("p", { class: "soft" }, "Rows are true classes. Press a number to see its images."), matrix(section), worst),
    found.calibration ? reliability(found.calibration) : null, found.selective ? selective(found.selective) : null,
    classes ? el("div", { class: "panel" }, el("h2", {}, "Each class"), classes) : null)];
};

// The other sections -------------------------------------------------------------------------------------------------------------------

const cellsOf = (split) => {
  const section = data.sections.find((one) => one.kind === "confusion" && one.split === split && one.drawn.cells);
  return section ? section.drawn.cells : null;
};

const thumbnail = (cells, index, about) => {
  const place = cells ? cells.images.findIndex((image) => image.index === index) : -1;
  return place < 0 ? "" : tile(cells, place, about, 44);
};

const mistakes = (section) => {
  const cells = cellsOf(section.split), rows = section.drawn.rows.slice(0, SHOWN_ROWS);
  if (!rows.length) return null;
  return table([["image"], ["#", true], ["true"], ["taken for"], ["probability", true], ["of the true class", true], ["loss", true], ["nearest training images"], ["label"]],
    rows.map((row) => [thumbnail(cells, row.index, `image ${row.index}`), number(row.index), String(row.label), String(row.predicted), number(row.probability, 3), number(row.label_probability, 3), number(row.loss, 2), row.neighbours.join(", "), row.possible_label_error ? "worth checking" : ""]), "Mistakes");
};

const uncertainty = (section) => {
  const cells = cellsOf(section.split), found = section.drawn;
  return [found.scores.length ? table([["score"], ["AUROC", true], ["where right, nats", true], ["where wrong, nats", true]], found.scores.map((row) => [row.score.replaceAll("_", " "), number(row.auroc, 3), number(row.right, 3), number(row.wrong, 3)]), "Scores of uncertainty") : null,
    found.rows.length ? [el("h3", {}, "Most uncertain images"), table([["image"], ["#", true], ["true"], ["taken for"], ["probability", true], ["entropy, nats", true]],
      found.rows.slice(0, SHOWN_ROWS).map((row) => [thumbnail(cells, row.image, `image ${row.image}`), number(row.image), String(row.label), String(row.predicted), number(row.probability, 3), number(row.predictive_entropy, 3)]), "Most uncertain images")] : null].flat();
};

const pictures = (section) => (section.pictures.length ? el("div", { class: "pictures" }, section.pictures.map((picture) => el("a", { href: file(picture.name), title: `${picture.about}; open it alone` },
  el("img", { src: file(picture.name), alt: `${section.title}: ${picture.about}`, loading: "lazy", decoding: "async" })))) : null);

const DRAWN = { confusion, mistakes, uncertainty };

const show = (section) => {
  const drawing = DRAWN[section.kind];
  const drawn = drawing ? drawing(section) : null;
  const plain = pictures(section);
  return el("section", { class: "section", id: section.id, "aria-label": section.title },
    el("h2", {}, section.title),
    section.says.map((line) => el("p", {}, line)), section.warnings.map((line) => el("p", { class: "warning" }, line)), drawn,
    plain && drawing ? el("details", {}, el("summary", {}, `Pictures (${section.pictures.length})`), plain) : plain,
    section.tables.length ? el("p", { class: "soft" }, "All rows: ", section.tables.map((name, place) => [place ? ", " : "", el("a", { href: file(name), download: name }, name)])) : null);
};

const commands = () => (data.missing.length ? el("section", { class: "section" }, el("h2", {}, "Not looked at yet"), el("p", { class: "soft" }, "Each of these adds a section here:"),
  el("pre", { class: "command" }, data.missing.map((what) => `firstlight inspect ${what} ${/^[\w./-]+$/.test(data.path) ? data.path : `'${data.path.replaceAll("'", "'\\''")}'`}`).join("\n"))) : null);

const draw = () => {
  const some = data.sections.length > 0;
  box.replaceChildren(...[
    some ? el("nav", { class: "contents", "aria-label": "Sections" }, data.sections.map((section) => el("a", { href: `#${section.id}` }, section.title))) : el("p", {}, "Nothing was looked at in this run yet."),
    ...data.sections.map(show), commands()].filter(Boolean));
  if (location.hash.length > 1) document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
};

getJson(`/api/run/${id}/inspection`).then((found) => { data = found; draw(); }, (error) => {
  const problem = document.getElementById("problem");
  problem.textContent = error.message;
  problem.hidden = false;
  box.replaceChildren();
});
