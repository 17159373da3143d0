// The page: what its buttons do, and what it shows.

import { draw, fetchJson, Student } from "./student.js";
import { loadTokenizer } from "./tokenizer.js";

const $ = (id) => document.getElementById(id);
const FRAME = 12; // milliseconds of work between two frames
const THREE_DIGITS = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

let student, tokenizer, endings;
let memory, numTokens; // after everything on the page
let unread = null; // the last drawn token, which the memory has not read yet
let decode; // from the next token to the text that it completes
let ended = false; // whether the student ended its text
let running = false;

async function load() {
  const megabytes = (bytes) => (bytes / 1e6).toFixed(1);
  const generation = await fetchJson("generation_config.json");
  endings = new Set([generation.eos_token_id ?? []].flat());
  tokenizer = await loadTokenizer();
  student = await Student.load((received, total) => say(`Loading … ${megabytes(received)} of ${megabytes(total)} MB`));
  const { num_parameters: parameters, num_memory_tokens: tokens, hidden_size: width, student: name } = student.manifest;
  $("about").textContent =
    `${name || "This student"}: ${parameters.toLocaleString("en")} parameters. All that it knows of the text is ${tokens} memory ` +
    `tokens of ${width} numbers: it reads every token once and never looks back.`;
  $("caption").innerHTML =
    `${tokens} memory tokens (rows) of ${width} numbers: <span><span class="low">■</span> negative <span class="high">■</span> positive</span>`;
  $("bytes").textContent = `${(4 * tokens * width).toLocaleString("en")} bytes`;
  Object.assign($("memory"), { width, height: tokens });
  $("memory").style.height = `${tokens * Math.max(3, Math.min(26, Math.floor(220 / tokens)))}px`;
  begin();
  setBusy(false);
  say("Ready.");
}

/** Starts an empty page with the student's initial memory, or with another one. */
function begin(states = student.initial, count = 0) {
  [memory, numTokens, unread, ended, decode] = [states, count, null, false, tokenizer.decoder([])];
  $("text").replaceChildren(element("span", "hint", count ? restored(count) : "Type a beginning below, or leave it to the student."));
  show();
}

const restored = (count) =>
  `The memory of ${count.toLocaleString("en")} tokens is back. Their text is not: the memory is all that the student needs to go on.`;

/** Reads the words in the box, then writes until the student ends its text, the length is reached, or Stop is pressed. */
async function write() {
  const words = $("words").value;
  if (ended) begin();
  $("text").querySelector(".hint")?.remove();
  $("words").value = "";
  setBusy(true);
  say("");
  const since = performance.now();
  const before = numTokens;
  let written = 0;
  try {
    const prompt = tokenizer.encode(words);
    if (words) {
      $("text").append(element("span", "reader", words));
      decode = tokenizer.decoder(prompt);
    }
    const pace = makePace(() => show(numTokens - before, since));
    for (const token of prompt) {
      if (!running) break;
      await read(token);
      await pace();
    }
    const passage = $("text").appendChild(element("span", "student"));
    const limit = Number($("length").value);
    for (; written < limit && running; written++) {
      if (unread !== null) await read(unread);
      const token = draw(await student.readout(memory), Number($("temperature").value));
      if (endings.has(token)) {
        ended = true;
        $("text").append(element("span", "end", "⁂"));
        break;
      }
      unread = token;
      passage.append(decode(token));
      await pace();
    }
    if (unread !== null) await read(unread);
    say(ended ? "The student ended its text. Press Write to start a new one." : running ? "Press Write to continue from the memory." : "Stopped.");
  } catch (error) {
    refuse(error);
  }
  show(numTokens - before, since);
  setBusy(false);
}

async function read(token) {
  memory = await student.update(memory, token);
  numTokens++;
  unread = null;
}

/** A function to await between tokens: once per frame, it shows what is new and lets the browser work. */
function makePace(picture) {
  let last = performance.now();
  return async () => {
    if (performance.now() - last < FRAME) return;
    picture();
    await new Promise((next) => (document.hidden ? setTimeout(next) : requestAnimationFrame(next)));
    last = performance.now();
  };
}

function show(count = 0, since = 0) {
  const text = $("text");
  if (running) text.scrollTop = text.scrollHeight;
  number("tokens", numTokens);
  if (count) number("speed", (1000 * count) / (performance.now() - since));
  paint();
}

function number(id, value) {
  $(id).textContent = THREE_DIGITS.format(value);
  $(id).dataset.value = value;
}

/** The memory as a picture; full colour at three times its root mean square. */
function paint() {
  const canvas = $("memory");
  const style = getComputedStyle(document.documentElement);
  const [low, zero, high] = ["--low", "--zero", "--high"].map((name) => {
    const hex = style.getPropertyValue(name).trim();
    return [1, 3, 5].map((place) => parseInt(hex.slice(place, place + 2), 16));
  });
  const scale = 3 * Math.sqrt(memory.reduce((sum, value) => sum + value * value, 0) / memory.length) + 1e-12;
  const picture = new ImageData(canvas.width, canvas.height);
  memory.forEach((value, i) => {
    const strength = Math.min(1, Math.abs(value) / scale);
    const colour = value < 0 ? low : high;
    for (let channel = 0; channel < 3; channel++) {
      picture.data[4 * i + channel] = zero[channel] + strength * (colour[channel] - zero[channel]);
    }
    picture.data[4 * i + 3] = 255;
  });
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

function save() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([student.writeMemory(memory, numTokens)]));
  link.download = "memory.safetensors";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  say(`Saved the memory of ${numTokens.toLocaleString("en")} tokens.`);
}

async function restore(file) {
  try {
    const { states, numTokens: count } = student.readMemory(await file.arrayBuffer());
    begin(states, count);
    say("Restored.");
  } catch (error) {
    refuse(error);
  }
}

function setBusy(busy) {
  running = busy;
  document.body.dataset.busy = Number(busy);
  $("write").textContent = busy ? "Stop" : "Write";
  $("write").disabled = false;
  for (const id of ["words", "fresh", "save", "restore"]) $(id).disabled = busy;
}

function say(text, refused = false) {
  $("notice").textContent = text;
  $("notice").className = refused ? "refused" : "";
}

function refuse(error) {
  console.error(error);
  say(String(error.message ?? error), true);
}

function element(name, className, text = "") {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

$("write").addEventListener("click", () => (running ? (running = false) : write()));
$("fresh").addEventListener("click", () => (begin(), say("")));
$("save").addEventListener("click", save);
$("restore").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", async ({ target }) => {
  if (target.files.length) await restore(target.files[0]);
  target.value = ""; // the same file may be chosen again
});
$("words").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) write();
});
for (const id of ["temperature", "length"]) {
  $(id).addEventListener("input", () => ($(`${id}-value`).textContent = $(id).value));
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => memory && paint());

load().catch(refuse);
