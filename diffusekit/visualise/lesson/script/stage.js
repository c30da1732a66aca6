// The images, the slider, the play button and the keys.

const NAMES = {
  noised: "the noisy latents, decoded",
  denoised: "the predicted image",
  noise: "the predicted noise",
  without: "the prediction without the prompt",
  with: "the prediction with the prompt",
  difference: "where the prompt changes the prediction",
};
const SYMBOLS = { noised: "xₜ", denoised: "x̂₀", noise: "ε̂", without: "without", with: "with", difference: "change" };
const PIXELATED = new Set(["difference"]); // maps that are shown cell by cell

/** The image of a kind at a position. The final image has no prediction. */
function frame(run, kind, at) {
  const frames = data.runs[run].frames;
  if (at === last && (kind === "noised" || kind === "denoised")) return frames.image;
  return frames[kind][Math.min(at, last - 1)];
}

function currentStep() {
  return state.at === last ? "finished" : `step ${level(0).step} of ${data.total}`;
}

function showImages() {
  for (const image of all("img[data-frame]")) {
    const run = Number(image.dataset.run);
    const main = image.dataset.frame === "main";
    const kind = main ? state.kind : image.dataset.frame;
    const source = frame(run, kind, state.at);
    if (image.getAttribute("src") !== source) image.src = source;
    image.alt = `${NAMES[kind]}, ${currentStep()}: “${data.runs[run].prompt}”`;
    image.classList.toggle("pixelated", PIXELATED.has(kind));
  }
  all("[data-tag]").forEach((tag) => {
    tag.textContent = `${SYMBOLS[state.kind]} · ${currentStep()}`;
  });
  for (const button of all(".kind")) {
    button.setAttribute("aria-pressed", String(button.dataset.kind === state.kind));
  }
  one("mini").src = frame(0, state.kind, state.at);
  const slider = one("at");
  if (Number(slider.value) !== state.at) slider.value = state.at;
  slider.setAttribute("aria-valuetext", currentStep());
  one("where").innerHTML =
    state.at === last ? `<b>done</b> <i>${data.total} steps</i>` : `<b>${level(0).step}</b> <i>of ${data.total}</i>`;
  one("back").disabled = state.at === 0;
  one("forth").disabled = state.at === last;
  one("play").setAttribute("aria-label", state.playing ? "Pause" : "Play");
  one("play").classList.toggle("playing", state.playing);
}

let timer = 0;

function play(on) {
  clearTimeout(timer);
  if (!on) return set({ playing: false });
  set({ playing: true, at: state.at === last ? 0 : state.at });
  const pace = Math.max(80, Math.min(450, 9000 / last)) * (reducedMotion.matches ? 2 : 1);
  const go = () => {
    if (state.at === last) return set({ playing: false });
    set({ at: state.at + 1 });
    timer = setTimeout(go, pace);
  };
  timer = setTimeout(go, pace);
}

function move(at) {
  if (state.playing) play(false);
  set({ at });
}

const KEYS = {
  ArrowLeft: () => move(state.at - 1),
  ArrowRight: () => move(state.at + 1),
  Home: () => move(0),
  End: () => move(last),
  " ": () => play(!state.playing),
};

/** Whether the page handles a key, and not a button or the browser's scrolling. */
function handles(event) {
  const target = event.target;
  if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey || event.defaultPrevented) return false;
  if (target === one("at")) return event.key === " " || event.key in KEYS;
  if (target.closest("button, a, input, label, [role=application], .wide, code")) {
    return event.key.startsWith("Arrow") && target.closest("#stage, #transport") !== null;
  }
  return true;
}

one("at").addEventListener("input", (event) => move(Number(event.target.value)));
one("back").addEventListener("click", () => move(state.at - 1));
one("forth").addEventListener("click", () => move(state.at + 1));
one("play").addEventListener("click", () => play(!state.playing));
for (const button of all(".kind")) button.addEventListener("click", () => set({ kind: button.dataset.kind }));
document.addEventListener("keydown", (event) => {
  if (!(event.key in KEYS) || !handles(event)) return;
  event.preventDefault();
  KEYS[event.key]();
});
listen(showImages);

// the slider shows a small image while the large one is out of sight
new IntersectionObserver(([seen]) => {
  one("transport").classList.toggle("away", !seen.isIntersecting);
}, { threshold: 0.15 }).observe(document.querySelector(".screen"));
