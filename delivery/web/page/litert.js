// Loads a .tflite file into LiteRT.js and gives the function from a Float32Array in `shape` to the outputs.
import { loadAndCompile, loadLiteRt, Tensor } from "./runtime/core.js";

export async function load(file, shape) {
  await loadLiteRt("./runtime/wasm/");
  const model = await loadAndCompile(file, { accelerator: "wasm" });
  return async (image) => {
    const input = Tensor.fromTypedArray(image, shape);
    const outputs = await model.run([input]);
    const values = Float32Array.from(outputs[0].toTypedArray());
    input.delete();
    outputs.forEach((tensor) => tensor.delete());
    return values;
  };
}
