// A TF.js model's answers and their times, by the WebAssembly that the page loads: node answers.cjs REQUEST.
// REQUEST is JSON: modules (a node_modules folder), model (a folder), inputs (a file of float32, one sample after the
// other), shape ([N, ...] of these), outputs (where float32 go) and seconds (where float64 [N] go).
const fs = require("fs");
const path = require("path");

const WARM_UP = 5;

async function main({ modules, model, inputs, shape, outputs, seconds }) {
  const load = (name) => require(path.join(modules, "@tensorflow", name));
  const tf = load("tfjs-core");
  const { loadGraphModel } = load("tfjs-converter");
  const { setWasmPaths } = load("tfjs-backend-wasm");
  setWasmPaths(path.join(modules, "@tensorflow", "tfjs-backend-wasm", "dist") + path.sep);
  if (!(await tf.setBackend("wasm"))) throw new Error("TF.js cannot start its WebAssembly");
  const graph = await loadGraphModel({ load: async () => artifacts(model) });
  const [count, ...sample] = shape;
  const values = floats(inputs), length = values.length / count;
  const answers = [], times = new Float64Array(count);
  for (let call = -WARM_UP; call < count; call++) {
    const index = Math.max(call, 0);
    const part = values.subarray(index * length, (index + 1) * length);
    const started = performance.now();
    const input = tf.tensor(part, [1, ...sample]), output = graph.predict(input);
    const answer = output.dataSync();
    const passed = (performance.now() - started) / 1e3;
    if (call >= 0) {
      answers.push(Float32Array.from(answer));
      times[index] = passed;
    }
    tf.dispose([input, output]);
  }
  fs.writeFileSync(outputs, Buffer.concat(answers.map((answer) => Buffer.from(answer.buffer))));
  fs.writeFileSync(seconds, Buffer.from(times.buffer));
}

function artifacts(folder) {
  const description = JSON.parse(fs.readFileSync(path.join(folder, "model.json"), "utf8"));
  const groups = description.weightsManifest;
  const shards = groups.flatMap((group) => group.paths).map((name) => fs.readFileSync(path.join(folder, name)));
  const weightData = Uint8Array.from(Buffer.concat(shards)).buffer;
  return { ...description, weightSpecs: groups.flatMap((group) => group.weights), weightData };
}

function floats(file) {
  const bytes = Uint8Array.from(fs.readFileSync(file));
  return new Float32Array(bytes.buffer);
}

main(JSON.parse(process.argv[2])).catch((error) => {
  // The last line of what a child writes is what its parent says.
  console.error(String(error.message ?? error).replace(/\s+/g, " "));
  process.exit(1);
});
