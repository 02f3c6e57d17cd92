// Loads a graph model into TF.js and gives the function from a Float32Array in `shape` to the outputs.
import "./runtime/tf-core.js";
import "./runtime/tf-converter.js";
import "./runtime/tf-backend-wasm.js";

const { tf } = globalThis;

export async function load(file, shape) {
  // Threads would need worker scripts from memory, which the page's policy forbids.
  tf.env().set("WASM_HAS_MULTITHREAD_SUPPORT", false);
  tf.wasm.setWasmPaths(new URL("./runtime/", import.meta.url).href);
  if (!(await tf.setBackend("wasm"))) throw new Error("TF.js cannot start its WebAssembly");
  const model = await tf.loadGraphModel(file);
  return async (image) => {
    const input = tf.tensor(image, shape), output = model.predict(input);
    const values = Float32Array.from(await output.data());
    tf.dispose([input, output]);
    return values;
  };
}
