// The data of the page and its current state. The other scripts listen to changes.

const data = JSON.parse(document.getElementById("data").textContent);
const last = data.runs[0].numbers.length - 1; // the position after the last step: the final image
const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");
const state = { at: last, kind: "noised", run: null, word: null, mean: false, playing: false };
const listeners = [];

const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const one = (id) => document.getElementById(id);

function listen(listener) {
  listeners.push(listener);
}

function set(changes) {
  Object.assign(state, changes);
  state.at = Math.max(0, Math.min(last, state.at));
  for (const listener of listeners) listener(state);
}

/** The numbers of a run at the current step. After the last step, those of the final image. */
const level = (run) => data.runs[run].numbers[state.at];

/** The step whose prediction is shown. The final image shows those of the last step. */
const predictionStep = () => Math.min(state.at, last - 1);

/** Format a number without exponents and with few digits. */
function formatNumber(value, name) {
  if (value === null || value === undefined) return name === "snr" ? "∞" : "–";
  if (name === "timestep" || name === "step") return String(value);
  const size = Math.abs(value);
  if (size === 0 || size === 1) return String(value);
  if (size < 0.0001) return value.toFixed(6);
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  if (size >= 100) return value.toFixed(0);
  return size >= 1 ? value.toFixed(2) : value.toFixed(size < 0.01 ? 5 : size < 0.1 ? 4 : 3);
}

/** Decode base64 to bytes. */
function decodeBytes(text) {
  const binary = atob(text);
  const result = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) result[i] = binary.charCodeAt(i);
  return result;
}

document.documentElement.classList.add("js");
