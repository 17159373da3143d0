// The student: its step and its readout in ONNX Runtime, and its memory as a file.

import * as ort from "./vendor/ort.wasm.bundle.min.mjs";

ort.env.wasm.numThreads = 1; // more would need headers that a plain file server does not send
ort.env.wasm.wasmPaths = { wasm: new URL("./vendor/ort-wasm-simd-threaded.wasm", import.meta.url).href };

export class Student {
  /** Loads the student next to this page; calls `progress(received, total)` with bytes. */
  static async load(progress = () => {}) {
    const student = new Student();
    student.manifest = await fetchJson("export.json");
    const names = ["update.onnx", "readout.onnx", "initial_memory.safetensors"];
    const total = names.reduce((sum, name) => sum + student.manifest.files[name].bytes, 0);
    let received = 0;
    const files = [];
    for (const name of names) files.push(await fetchBytes(name, (bytes) => progress((received += bytes), total)));
    const options = { executionProviders: ["wasm"], graphOptimizationLevel: "all" };
    student.updater = await ort.InferenceSession.create(files[0], options);
    student.reader = await ort.InferenceSession.create(files[1], options);
    student.initial = student.readMemory(files[2].buffer).states;
    return student;
  }

  get shape() {
    return [1, this.manifest.num_memory_tokens, this.manifest.hidden_size];
  }

  /** The memory, a Float32Array of K x D numbers, after one more token. */
  async update(memory, token) {
    const inputs = {
      memory: new ort.Tensor("float32", memory, this.shape),
      input_ids: new ort.Tensor("int64", BigInt64Array.of(BigInt(token)), [1]),
    };
    return (await this.updater.run(inputs)).next_memory.data;
  }

  /** The logits of the next token, from the memory alone. */
  async readout(memory) {
    return (await this.reader.run({ memory: new ort.Tensor("float32", memory, this.shape) })).logits.data;
  }

  /** A memory as the safetensors file that SmtMemory.save_pretrained writes. */
  writeMemory(states, numTokens) {
    const header = JSON.stringify({
      __metadata__: { format: "pt", fingerprint: this.manifest.fingerprint, student_name: this.manifest.student },
      num_tokens: { dtype: "I64", shape: [1], data_offsets: [0, 8] },
      states: { dtype: "F32", shape: this.shape, data_offsets: [8, 8 + states.byteLength] },
    });
    const start = 8 + Math.ceil(header.length / 8) * 8;
    const file = new ArrayBuffer(start + 8 + states.byteLength);
    const view = new DataView(file);
    view.setBigUint64(0, BigInt(start - 8), true);
    new Uint8Array(file, 8).set(new TextEncoder().encode(header.padEnd(start - 8)));
    view.setBigInt64(start, BigInt(numTokens), true);
    new Float32Array(file, start + 8).set(states);
    return file;
  }

  /** The states and the number of tokens in such a file; throws an Error that says what is wrong with it. */
  readMemory(file) {
    const { header, data } = parseSafetensors(file);
    const { states, num_tokens: counts, __metadata__: metadata } = header;
    if (!states || !counts || !metadata?.fingerprint) throw new Error("this file contains no memory: choose one that Save memory wrote");
    if (!sameStudent(metadata.fingerprint, this.manifest.fingerprint)) {
      throw new Error(`this memory belongs to another student (${metadata.student_name || "of unknown name"}): restore it there`);
    }
    const [rows, ...shape] = states.shape;
    if (rows !== 1) throw new Error(`this file contains ${rows} memories: save one of them with memory[row].save_pretrained`);
    if (String(shape) !== String(this.shape.slice(1))) {
      throw new Error(`this memory has shape ${shape.join(" x ")}, but the student's has ${this.shape.slice(1).join(" x ")}: its file is damaged`);
    }
    if (states.dtype !== "F32") throw new Error(`this memory is stored as ${states.dtype}: save memory.to(torch.float32) instead`);
    const numbers = new Float32Array(data.slice(...states.data_offsets));
    if (!numbers.every(Number.isFinite)) throw new Error("this memory contains NaN or infinity: save another");
    const numTokens = Number(new DataView(data.slice(...counts.data_offsets)).getBigInt64(0, true));
    return { states: numbers, numTokens };
  }
}

function parseSafetensors(file) {
  try {
    const length = Number(new DataView(file).getBigUint64(0, true));
    return { header: JSON.parse(new TextDecoder().decode(new Uint8Array(file, 8, length))), data: file.slice(8 + length) };
  } catch {
    throw new Error("this file contains no memory: choose one that Save memory wrote");
  }
}

// As in smt_hf.models.fingerprint_smt_rnn: the relative difference that rounding explains, by precision.
const TOLERANCES = { float32: 1e-4, float16: 0.005, bfloat16: 0.03, "8-bit": 0.12, "4-bit": 0.2 };

function sameStudent(one, other) {
  if (one === other) return true;
  try {
    const [a, b] = [one, other].map((text) => {
      const [version, precision, numbers] = text.split(":");
      const bytes = Uint8Array.from(atob(numbers), (character) => character.charCodeAt(0));
      return { version, tolerance: TOLERANCES[precision], numbers: new Float32Array(bytes.buffer) };
    });
    if (a.version !== b.version || a.numbers.length !== b.numbers.length) return false;
    const half = a.numbers.length / 2; // memories, then logits
    const apart = [0, half].map((first) => {
      let difference = 0, size = 0;
      for (let i = first; i < first + half; i++) {
        difference += (a.numbers[i] - b.numbers[i]) ** 2;
        size += (a.numbers[i] ** 2 + b.numbers[i] ** 2) / 2;
      }
      return Math.sqrt(difference / size);
    });
    return Math.max(...apart) <= Math.max(a.tolerance, b.tolerance);
  } catch {
    return false;
  }
}

/** Draws a token from logits: the most likely one at temperature 0, otherwise one of the most likely that make up `topP`. */
export function draw(logits, temperature, topP = 0.95, random = Math.random) {
  let best = 0;
  for (let id = 1; id < logits.length; id++) if (logits[id] > logits[best]) best = id;
  if (temperature === 0) return best;
  const candidates = Array.from(logits, (logit, id) => ({ id, weight: Math.exp((logit - logits[best]) / temperature) }));
  candidates.sort((a, b) => b.weight - a.weight);
  const total = candidates.reduce((sum, { weight }) => sum + weight, 0);
  let kept = 0, count = 0;
  while (count < candidates.length && kept < topP * total) kept += candidates[count++].weight;
  let left = random() * kept;
  for (const { id, weight } of candidates.slice(0, count)) if ((left -= weight) < 0) return id;
  return best;
}

export async function fetchJson(name) {
  const response = await fetch(name);
  if (!response.ok) throw new Error(`${name} is missing (${response.status}): export the student again`);
  return response.json();
}

async function fetchBytes(name, received) {
  const response = await fetch(name);
  if (!response.ok) throw new Error(`${name} is missing (${response.status}): export the student again`);
  const pieces = [];
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    pieces.push(value);
    received(value.length);
  }
  return new Uint8Array(await new Blob(pieces).arrayBuffer());
}
