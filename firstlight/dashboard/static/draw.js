// Small pieces that the charts are made of: elements, numbers as text, scales with ticks, colours. Texts become text nodes, never markup.

const SVG = "http://www.w3.org/2000/svg";

const fill = (node, attributes, children) => {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
};

export const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
export const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

export const number = (value, digits = 4) => {
  if (value === null || value === undefined) return "–";
  if (!Number.isFinite(value)) return "not finite";
  if (Number.isInteger(value) && Math.abs(value) < 1e15) return value.toLocaleString("en");
  return Math.abs(value) >= 1e4 || Math.abs(value) < 1e-3 ? Number(value.toPrecision(3)).toString() : value.toFixed(digits);
};

// A figure such as an accuracy: always with its decimals, so that 1 does not look like a count.
export const figure = (value) => (value === null || value === undefined || !Number.isFinite(value) ? number(value) : Math.abs(value) < 1e4 ? value.toFixed(4) : number(value));

export const short = (value) => Number(value.toPrecision(4)).toString().replace("e+", "e");

export const duration = (seconds) => {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
};

// Round numbers that span low..high, about `count` of them.
const roundSteps = (low, high, count) => {
  const raw = (high - low) / Math.max(count, 1);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size >= raw * 0.999);
  const ticks = [];
  for (let index = Math.ceil(low / step - 1e-9); index * step <= high + step * 1e-9; index += 1) ticks.push(index * step);
  const digits = Math.max(0, Math.min(10, -Math.floor(Math.log10(step) + 1e-9) + (step / power === 2.5 ? 1 : 0)));
  return ticks.map((value) => ({ value, text: value.toFixed(digits) }));
};

const powers = (low, high, count) => {
  const first = Math.ceil(Math.log10(low) - 1e-9), last = Math.floor(Math.log10(high) + 1e-9);
  const every = Math.max(1, Math.ceil((last - first + 1) / count));
  const ticks = [];
  for (let power = first; power <= last; power += every) ticks.push({ value: 10 ** power, text: short(10 ** power) });
  return ticks.length > 1 ? ticks : roundSteps(low, high, count);
};

// A scale from numbers to places: {at(value), ticks: [{value, text}]}; low and high belong to it.
export const numericScale = (low, high, from, to, { log = false, count = 5 } = {}) => {
  if (!(high > low)) [low, high] = log && low > 0 ? [low / 2, low * 2] : [low - (Math.abs(low) * 0.05 || 0.5), high + (Math.abs(high) * 0.05 || 0.5)];
  const turn = log ? Math.log : (value) => value;
  const [first, last] = [turn(low), turn(high)];
  return {
    at: (value) => from + ((turn(value) - first) / (last - first)) * (to - from),
    ticks: log ? powers(low, high, count) : roundSteps(low, high, count),
  };
};

// A scale for the values of a parameter: numbers by their size, anything else evenly in its order.
export const parameterScale = (parameter, from, to, count = 6) => {
  const numbers = parameter.values.map((value) => value.number);
  if (parameter.numeric && numbers.length && numbers.every((value) => value !== null)) {
    const scale = numericScale(Math.min(...numbers), Math.max(...numbers), from, to, { log: parameter.log, count });
    const places = new Map(parameter.values.map((value) => [value.text, scale.at(value.number)]));
    const ticks = numbers.length <= count ? parameter.values.map((value) => ({ at: places.get(value.text), text: value.text }))
      : scale.ticks.map((tick) => ({ at: scale.at(tick.value), text: tick.text }));
    return { at: (text) => places.get(text), ticks };
  }
  const step = (to - from) / Math.max(parameter.values.length, 1);
  const places = new Map(parameter.values.map((value, index) => [value.text, from + step * (index + 0.5)]));
  return { at: (text) => places.get(text), ticks: parameter.values.map((value) => ({ at: places.get(value.text), text: value.text })) };
};

// Leave out ticks whose texts would run into each other.
export const spaced = (ticks, width) => {
  const kept = [];
  for (const tick of ticks) {
    const half = tick.text.length * 3.4 + 4;
    const last = kept[kept.length - 1];
    if (!last || Math.abs(tick.at - last.at) > half + last.text.length * 3.4 + 4) kept.push(tick);
  }
  return width < 0 ? ticks : kept;
};

export const cut = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

// Viridis in nine steps (Smith and van der Walt 2015), between which colours are mixed; share 0 to 1.
const VIRIDIS = [[68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141], [39, 173, 129], [92, 200, 99], [170, 220, 50], [253, 231, 37]];
export const heat = (share) => {
  const place = Math.min(Math.max(share, 0), 1) * (VIRIDIS.length - 1);
  const index = Math.min(Math.floor(place), VIRIDIS.length - 2);
  const mixed = VIRIDIS[index].map((part, channel) => Math.round(part + (VIRIDIS[index + 1][channel] - part) * (place - index)));
  return { color: `rgb(${mixed.join(",")})`, ink: 0.2126 * mixed[0] + 0.7152 * mixed[1] + 0.0722 * mixed[2] > 118 ? "#000" : "#fff" };
};

// Draw again whenever the width of a box changes; draw(width) returns what lies in it.
export const responsive = (box, draw) => {
  let known = 0;
  const observer = new ResizeObserver(() => {
    const width = Math.floor(box.clientWidth);
    if (width > 0 && width !== known) {
      known = width;
      box.replaceChildren(draw(width));
    }
  });
  observer.observe(box);
  return box;
};

export const getJson = async (address) => {
  const response = await fetch(address, { headers: { accept: "application/json" } });
  if (response.status === 204) return null;
  const found = await response.json().catch(() => ({ error: `the server answered with ${response.status}` }));
  if (!response.ok) throw new Error(found.error || `the server answered with ${response.status}`);
  return found;
};

// Ask for what is new each second while the page is looked at; show(data) is called when there is something. Ends when the data say so.
export const follow = async (address, show, problem) => {
  let stamp = "";
  for (;;) {
    if (!document.hidden) {
      try {
        const found = await getJson(`${address}${address.includes("?") ? "&" : "?"}since=${encodeURIComponent(stamp)}`);
        problem("");
        if (found !== null) {
          stamp = found.stamp;
          show(found);
        }
      } catch (error) {
        problem(`No answer from firstlight: ${error.message}. This page shows what was known before, and asks again.`);
      }
    }
    await new Promise((done) => setTimeout(done, document.hidden ? 500 : 1000));
  }
};
