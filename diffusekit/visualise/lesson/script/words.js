// A word that is pointed at, focused or tapped shows where the model looked for it.

/** Words that are held stay after the pointer has gone. */
let held = null;

function point(run, word) {
  set({ run, word });
}

function leave() {
  if (held) point(held.run, held.word);
  else point(null, null);
}

for (const button of all(".word")) {
  const run = Number(button.dataset.run);
  const word = Number(button.dataset.word);
  const same = () => held && held.run === run && held.word === word;
  button.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && point(run, word));
  button.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && leave());
  button.addEventListener("focus", () => button.matches(":focus-visible") && point(run, word));
  button.addEventListener("blur", leave);
  button.addEventListener("click", () => {
    held = same() ? null : { run, word };
    leave();
  });
}

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  held = null;
  leave();
});

if (one("mean")) one("mean").addEventListener("change", (event) => set({ mean: event.target.checked }));

const percent = (share) => `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;

function glow() {
  for (const canvas of all("[data-glow]")) {
    const run = Number(canvas.dataset.glow);
    const on = state.run === run && state.word !== null;
    canvas.hidden = !on;
    canvas.parentElement.classList.toggle("asked", on);
    if (!on) continue;
    const { values, width, height } = heat(run, state.word, asked());
    paint(canvas, values, width, height, magma, (value) => 130 + 0.38 * value);
  }
}

function tell() {
  if (!one("told")) return;
  for (const button of all(".word")) {
    const mine = state.run === Number(button.dataset.run) && state.word === Number(button.dataset.word);
    button.classList.toggle("on", mine);
    const pinned = held && held.run === Number(button.dataset.run) && held.word === Number(button.dataset.word);
    button.setAttribute("aria-pressed", String(Boolean(pinned)));
  }
  const over = state.mean ? "over all steps" : state.at === last ? "at the last step" : `at step ${level(0).step}`;
  if (state.word === null) {
    one("told").textContent = "";
  } else {
    const { most, share } = heat(state.run, state.word, asked());
    const name = data.runs[state.run].heat.words[state.word];
    one("told").textContent =
      `“${name}” ${over}: ${percent(share)} of all looking, ${percent(most)} where it is brightest.`;
  }
  for (const bar of all("[data-share]")) {
    const found = heat(Number(bar.dataset.share), Number(bar.dataset.word), asked());
    bar.style.transform = `scaleX(${Math.sqrt(found.share)})`;
  }
}

function maps() {
  for (const canvas of all("[data-map]")) {
    const run = Number(canvas.dataset.map);
    const { values, width, height } = heat(run, Number(canvas.dataset.word), asked());
    paint(canvas, values, width, height, magma);
  }
  for (const place of all("[data-most]")) {
    place.textContent = percent(heat(Number(place.dataset.most), Number(place.dataset.word), asked()).most);
  }
}

listen(glow);
listen(tell);
listen(maps);
