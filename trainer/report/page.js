// Reading values under the pointer and zooming into steps. The page is complete without it.
"use strict";
const SIZE = 1000;

function niceTicks(low, high, most) {
  const rough = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough * (1 - 1e-9));
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i <= Math.floor(high / step + 1e-9); i++) ticks.push(i * step);
  return { ticks, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

function numberText(value, unit) {
  const size = Math.abs(value);
  if (value === 0) return "0" + unit;
  if (size < 1e-3 || size >= 1e7) return value.toExponential(2) + unit;
  return value.toLocaleString("en", { maximumSignificantDigits: size >= 1000 ? 6 : 4 }) + unit;
}

function readChart(svg) {
  const [xLow, xHigh] = svg.dataset.x.split(" ").map(Number);
  let [yLow, yHigh] = svg.dataset.y.split(" ").map(Number);
  const log = svg.dataset.log === "1";
  if (log) [yLow, yHigh] = [Math.log10(yLow), Math.log10(yHigh)];
  const lines = [...svg.querySelectorAll("path[data-name]")].map((path) => ({
    name: path.dataset.name,
    color: getComputedStyle(path).stroke,
    points: (path.getAttribute("d").match(/[ML][^ML]+/g) || []).map((part) => part.slice(1).split(" ").map(Number)),
  }));
  return {
    svg, lines, log, unit: svg.dataset.unit || "",
    step: (x) => xLow + (x / SIZE) * (xHigh - xLow),
    across: (step) => ((step - xLow) / (xHigh - xLow)) * SIZE,
    level: (y) => yLow + (1 - y / SIZE) * (yHigh - yLow),
    down: (level) => (1 - (level - yLow) / (yHigh - yLow)) * SIZE,
    view: { x: 0, y: 0, width: SIZE, height: SIZE },
  };
}

function nearest(points, x) {
  let low = 0, high = points.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (points[middle][0] < x) low = middle; else high = middle;
  }
  if (high < 0) return null;
  return Math.abs(points[low][0] - x) <= Math.abs(points[high][0] - x) ? points[low] : points[high];
}

function label(text, side, place) {
  const span = document.createElement("span");
  span.textContent = text;
  span.style[side] = `${place}%`;
  return span;
}

function showRange(chart, xFrom, xTo) {
  const inside = chart.lines.flatMap((line) => line.points.filter(([x]) => x >= xFrom && x <= xTo).map(([, y]) => y));
  if (inside.length < 2) return;
  let top = Math.min(...inside), bottom = Math.max(...inside);
  const room = 0.06 * (bottom - top) || 20;
  top -= room; bottom += room;
  chart.view = { x: xFrom, y: top, width: xTo - xFrom, height: bottom - top };
  chart.svg.setAttribute("viewBox", `${xFrom} ${top} ${xTo - xFrom} ${bottom - top}`);
  const plot = chart.svg.closest(".plot");
  const xTicks = niceTicks(chart.step(xFrom), chart.step(xTo), 6).ticks.filter(Number.isInteger);
  plot.querySelector(".x-axis").replaceChildren(...xTicks.map((tick) =>
    label(tick.toLocaleString("en"), "left", (100 * (chart.across(tick) - xFrom)) / (xTo - xFrom))));
  const value = (level) => (chart.log ? 10 ** level : level);
  const { ticks, digits } = niceTicks(value(chart.level(bottom)), value(chart.level(top)), 6);
  const down = (tick) => chart.down(chart.log ? Math.log10(tick) : tick);
  const shown = ticks.filter((tick) => !chart.log || tick > 0);
  plot.querySelector(".y-axis").replaceChildren(...shown.map((tick) => label(
    tick.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: Math.max(digits, 3) }) + chart.unit,
    "bottom", (100 * (bottom - down(tick))) / (bottom - top))));
  chart.svg.querySelectorAll(".grid").forEach((path, index) =>
    path.setAttribute("d", shown[index] === undefined ? "" : `M0 ${down(shown[index])}H${SIZE}`));
}

function equip(svg) {
  const chart = readChart(svg);
  const canvas = svg.parentElement;
  const plot = canvas.parentElement;
  const original = [...plot.querySelectorAll(".x-axis, .y-axis")].map((axis) => [axis, [...axis.children]]);
  const grid = [...svg.querySelectorAll(".grid")].map((path) => path.getAttribute("d"));
  const cursor = canvas.appendChild(Object.assign(document.createElement("div"), { className: "cursor", hidden: true }));
  const tip = canvas.appendChild(Object.assign(document.createElement("div"), { className: "tip", hidden: true }));
  const picked = canvas.appendChild(Object.assign(document.createElement("div"), { className: "picked", hidden: true }));
  const whole = canvas.appendChild(Object.assign(document.createElement("button"),
    { className: "whole", hidden: true, textContent: "Show all" }));
  let dragFrom = null;

  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
  };
  const inView = (share) => chart.view.x + share * chart.view.width;

  function point(event) {
    const share = place(event);
    const found = chart.lines.map((line) => [line, nearest(line.points, inView(share))]).filter(([, point]) => point);
    if (!found.length) return;
    const x = found.map(([, point]) => point[0]).reduce((a, b) =>
      Math.abs(a - inView(share)) <= Math.abs(b - inView(share)) ? a : b);
    const at = (x - chart.view.x) / chart.view.width;
    cursor.hidden = tip.hidden = false;
    cursor.style.left = `${100 * at}%`;
    tip.style.left = at < 0.5 ? `calc(${100 * at}% + 10px)` : "";
    tip.style.right = at < 0.5 ? "" : `calc(${100 * (1 - at)}% + 10px)`;
    const rows = [`step ${Math.round(chart.step(x)).toLocaleString("en")}`];
    tip.replaceChildren(document.createTextNode(rows[0]));
    for (const [line, [lineX, y]] of found) {
      const value = chart.log ? 10 ** chart.level(y) : chart.level(y);
      const row = tip.appendChild(document.createElement("div"));
      row.style.color = line.color;
      const stray = Math.round(chart.step(lineX)) !== Math.round(chart.step(x));
      row.textContent = `${line.name} ${numberText(value, chart.unit)}` +
        (stray ? ` (step ${Math.round(chart.step(lineX)).toLocaleString("en")})` : "");
    }
  }

  canvas.addEventListener("pointermove", (event) => {
    if (dragFrom === null) return point(event);
    const [from, to] = [dragFrom, place(event)].sort((a, b) => a - b);
    picked.hidden = false;
    Object.assign(picked.style, { left: `${100 * from}%`, width: `${100 * (to - from)}%` });
  });
  canvas.addEventListener("pointerleave", () => { cursor.hidden = tip.hidden = true; });
  canvas.addEventListener("pointerdown", (event) => {
    if (event.pointerType !== "mouse" || event.button !== 0 || event.target === whole) return;
    dragFrom = place(event);
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointerup", (event) => {
    if (dragFrom === null) return;
    const [from, to] = [dragFrom, place(event)].sort((a, b) => a - b);
    dragFrom = null;
    picked.hidden = true;
    if (to - from < 0.02) return;
    showRange(chart, inView(from), inView(to));
    whole.hidden = false;
    canvas.classList.add("zoomed");
  });
  const restore = () => {
    chart.view = { x: 0, y: 0, width: SIZE, height: SIZE };
    svg.setAttribute("viewBox", `0 0 ${SIZE} ${SIZE}`);
    original.forEach(([axis, children]) => axis.replaceChildren(...children));
    svg.querySelectorAll(".grid").forEach((path, index) => path.setAttribute("d", grid[index]));
    whole.hidden = true;
    canvas.classList.remove("zoomed");
  };
  whole.addEventListener("click", restore);
  canvas.addEventListener("dblclick", restore);
}

document.querySelectorAll(".canvas svg").forEach(equip);
