// Draws, places the drawing as the training images are placed, runs the model, shows the classes.
import { load } from "./runtime.js";

const at = (id) => document.getElementById(id);
const pad = at("pad"), pen = pad.getContext("2d", { willReadFrequently: true });
const PEN_SHARE = 1 / 13; // of the pad's side: about two of 28 pixels once the drawing is placed
let facts, model, running = Promise.resolve();

async function start() {
  const [description, samples] = await Promise.all(["model.json", "samples.json"].map(async (file) => (await fetch(file)).json()));
  facts = description;
  at("facts").textContent = `${facts.run}, ${facts.artefact}, ${facts.runtime}, ${sizeText(facts.bytes)}` +
    (facts.value === null ? "" : `, ${facts.metric} ${facts.value.toFixed(3)}`);
  clear();
  showBars(null);
  model = await load(facts.model, facts.input.shape);
  await compare(samples);
  showSamples(samples);
  at("status").textContent = "Ready";
  document.body.dataset.state = "ready";
}

// Float32Array [H * W * channels] to the model's outputs, one run at a time.
function infer(image) {
  running = running.then(() => model(image));
  return running;
}

// The same samples went through the same file in Python: the classes must be the same.
async function compare(samples) {
  const images = imagesOf(samples);
  let equal = 0, largest = 0;
  const started = performance.now();
  for (let i = 0; i < samples.count; i++) {
    const values = await infer(images[i]), expected = samples.outputs[i];
    equal += argmax(values) === argmax(expected);
    largest = Math.max(largest, ...expected.map((value, k) => Math.abs(value - values[k])));
  }
  const milliseconds = (performance.now() - started) / samples.count;
  document.body.dataset.equal = equal;
  document.body.dataset.compared = samples.count;
  document.body.dataset.difference = largest;
  document.body.dataset.milliseconds = milliseconds;
  at("agreement").textContent = `${equal} of ${samples.count} held-out samples get the class that Python gives`;
  at("speed").textContent = `${milliseconds.toFixed(2)} ms a sample`;
}

function imagesOf(samples) {
  const bytes = Uint8Array.from(atob(samples.images), (character) => character.charCodeAt(0));
  const all = new Float32Array(bytes.buffer), length = all.length / samples.count;
  return Array.from({ length: samples.count }, (_, i) => all.slice(i * length, (i + 1) * length));
}

function showSamples(samples) {
  const images = imagesOf(samples).slice(0, 30);
  images.forEach((image, i) => {
    const button = document.createElement("button"), canvas = document.createElement("canvas");
    button.type = "button";
    button.setAttribute("aria-label", `Sample ${i + 1}`);
    paint(canvas, image);
    button.append(canvas);
    button.addEventListener("click", () => {
      pen.imageSmoothingEnabled = false;
      clear();
      pen.drawImage(canvas, 0, 0, pad.width, pad.height);
      pen.imageSmoothingEnabled = true;
      answer(image);
    });
    at("samples").append(button);
  });
}

function paint(canvas, image) {
  const [height, width, channels] = facts.input.image;
  canvas.width = width;
  canvas.height = height;
  const pixels = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) pixels.data[4 * i + c] = 255 * image[i * channels + Math.min(c, channels - 1)];
    pixels.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

// The drawing in the size that the model takes: its figure as large, and its centre of mass where, training images have it.
function placed() {
  const [height, width, channels] = facts.input.image, side = pad.width;
  const data = pen.getImageData(0, 0, side, side).data;
  let left = side, right = -1, top = side, bottom = -1, mass = 0, x = 0, y = 0;
  for (let i = 0; i < side * side; i++) {
    const ink = data[4 * i];
    if (ink < 50) continue;
    const column = i % side, row = (i - column) / side;
    left = Math.min(left, column), right = Math.max(right, column), top = Math.min(top, row), bottom = Math.max(bottom, row);
    mass += ink, x += ink * column, y += ink * row;
  }
  if (right < 0) return null;
  const small = document.createElement("canvas");
  small.width = width, small.height = height;
  const brush = small.getContext("2d", { willReadFrequently: true });
  brush.fillRect(0, 0, width, height);
  brush.imageSmoothingQuality = "high";
  if (facts.extent >= 1) {
    brush.drawImage(pad, 0, 0, width, height);
  } else {
    const scale = facts.extent * width / Math.max(right - left + 1, bottom - top + 1);
    brush.drawImage(pad, width / 2 - scale * (x / mass + 0.5), height / 2 - scale * (y / mass + 0.5), scale * side, scale * side);
  }
  const shrunk = brush.getImageData(0, 0, width, height).data;
  const image = new Float32Array(width * height * channels);
  for (let i = 0; i < image.length; i++) image[i] = shrunk[4 * Math.floor(i / channels) + (i % channels)] / 255;
  return image;
}

async function answer(image) {
  if (image === null || model === undefined) return;
  paint(at("seen"), image);
  showBars(softmax(await infer(image)));
}

function showBars(shares) {
  const most = facts.classes.map((_, i) => i);
  if (facts.classes.length > 12 && shares) most.sort((a, b) => shares[b] - shares[a]);
  const best = shares ? argmax(shares) : -1;
  at("verdict").textContent = shares ? facts.classes[best] : "\u2013";
  at("certainty").textContent = shares ? `${percent(shares[best])} sure` : "draw something";
  document.body.dataset.answer = shares ? facts.classes[best] : "";
  at("bars").replaceChildren(...most.slice(0, 12).map((i) => {
    const line = document.createElement("li"), name = document.createElement("span"), bar = document.createElement("i");
    const share = document.createElement("span");
    name.textContent = facts.classes[i];
    share.textContent = shares ? percent(shares[i]) : "";
    bar.style.setProperty("--share", shares ? shares[i] : 0);
    line.className = i === best ? "first" : "";
    line.append(name, bar, share);
    return line;
  }));
}

const argmax = (values) => values.reduce((best, value, i) => (value > values[best] ? i : best), 0);
const percent = (share) => `${(100 * share).toFixed(1)}%`;
const sizeText = (bytes) => (bytes < 1e6 ? `${(bytes / 1e3).toFixed(0)} kB` : `${(bytes / 1e6).toFixed(2)} MB`);

function softmax(values) {
  const largest = Math.max(...values), powers = Array.from(values, (value) => Math.exp(value - largest));
  const total = powers.reduce((sum, power) => sum + power, 0);
  return powers.map((power) => power / total);
}

function clear() {
  pen.fillStyle = "#000";
  pen.fillRect(0, 0, pad.width, pad.height);
  if (facts) {
    paint(at("seen"), new Float32Array(facts.input.image.reduce((a, b) => a * b)));
    showBars(null);
  }
}

let last = null;
const placeOf = (event) => {
  const box = pad.getBoundingClientRect();
  return [(event.clientX - box.left) * pad.width / box.width, (event.clientY - box.top) * pad.height / box.height];
};
const stroke = (to) => {
  pen.strokeStyle = "#fff", pen.lineWidth = pad.width * PEN_SHARE, pen.lineCap = pen.lineJoin = "round";
  pen.beginPath();
  pen.moveTo(...(last ?? to));
  pen.lineTo(...to);
  pen.stroke();
  last = to;
};
pad.addEventListener("pointerdown", (event) => {
  pad.setPointerCapture(event.pointerId);
  last = null;
  stroke(placeOf(event));
});
pad.addEventListener("pointermove", (event) => {
  if (last === null) return;
  stroke(placeOf(event));
  answer(placed());
});
pad.addEventListener("pointerup", () => {
  if (last !== null) answer(placed());
  last = null;
});
at("clear").addEventListener("click", clear);

start().catch((error) => {
  document.body.dataset.state = "failed";
  at("status").textContent = `The model cannot be run: ${error.message ?? error}`;
});
