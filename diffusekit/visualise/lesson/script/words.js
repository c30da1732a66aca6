// Pointing at a word, focusing or tapping it shows where the model looked for it.

/** The word that was clicked. It stays selected after the pointer has left. */
let pinned = null;

function select(run, word) {
  set({ run, word });
}

function deselect() {
  if (pinned) select(pinned.run, pinned.word);
  else select(null, null);
}

for (const button of all(".word")) {
  const run = Number(button.dataset.run);
  const word = Number(button.dataset.word);
  const same = () => pinned && pinned.run === run && pinned.word === word;
  button.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && select(run, word));
  button.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && deselect());
  button.addEventListener("focus", () => button.matches(":focus-visible") && select(run, word));
  button.addEventListener("blur", deselect);
  button.addEventListener("click", () => {
    pinned = same() ? null : { run, word };
    deselect();
  });
}

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  pinned = null;
  deselect();
});

if (one("mean")) one("mean").addEventListener("change", (event) => set({ mean: event.target.checked }));

const percent = (share) => `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;

function showOverlay() {
  for (const canvas of all("[data-glow]")) {
    const run = Number(canvas.dataset.glow);
    const on = state.run === run && state.word !== null;
    canvas.hidden = !on;
    canvas.parentElement.classList.toggle("overlaid", on);
    if (!on) continue;
    const { values, width, height } = wordMap(run, state.word, predictionStep());
    paint(canvas, values, width, height, magma, (value) => 130 + 0.38 * value);
  }
}

function showShares() {
  if (!one("word-shares")) return;
  for (const button of all(".word")) {
    const isSelected = state.run === Number(button.dataset.run) && state.word === Number(button.dataset.word);
    button.classList.toggle("on", isSelected);
    const isPinned = pinned && pinned.run === Number(button.dataset.run) && pinned.word === Number(button.dataset.word);
    button.setAttribute("aria-pressed", String(Boolean(isPinned)));
  }
  const over = state.mean ? "over all steps" : state.at === last ? "at the last step" : `at step ${level(0).step}`;
  if (state.word === null) {
    one("word-shares").textContent = "";
  } else {
    const { most, share } = wordMap(state.run, state.word, predictionStep());
    const name = data.runs[state.run].attention.words[state.word];
    one("word-shares").textContent =
      `“${name}” ${over}: ${percent(share)} of the attention, ${percent(most)} at the brightest position.`;
  }
  for (const bar of all("[data-share]")) {
    const { share } = wordMap(Number(bar.dataset.share), Number(bar.dataset.word), predictionStep());
    bar.style.transform = `scaleX(${Math.sqrt(share)})`;
  }
}

function showMaps() {
  for (const canvas of all("[data-map]")) {
    const run = Number(canvas.dataset.map);
    const { values, width, height } = wordMap(run, Number(canvas.dataset.word), predictionStep());
    paint(canvas, values, width, height, magma);
  }
  for (const label of all("[data-most]")) {
    label.textContent = percent(wordMap(Number(label.dataset.most), Number(label.dataset.word), predictionStep()).most);
  }
}

listen(showOverlay);
listen(showShares);
listen(showMaps);
