// One cell of the latents: its numbers, and its position in the image.

/** Mark a cell of a run, or none. */
function mark(run, cell) {
  const { height, width, channels } = data.runs[run].latents;
  for (const spot of all(`[data-spot="${run}"]`)) {
    spot.hidden = cell === null;
    if (cell === null) continue;
    spot.style.left = `${((cell % width) / width) * 100}%`;
    spot.style.top = `${(Math.floor(cell / width) / height) * 100}%`;
    spot.style.width = `${100 / width}%`;
    spot.style.height = `${100 / height}%`;
  }
  const label = one(`cell-${run}`);
  if (cell === null) {
    label.textContent = "point at a cell";
    return;
  }
  const values = [];
  for (let i = 0; i < channels; i++) {
    const value = valueOf(run, "denoised", state.at, i, cell);
    values.push(`<b>${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}</b>`);
  }
  label.innerHTML = `<span>row ${Math.floor(cell / width) + 1}, column ${(cell % width) + 1}</span> ${values.join(" ")}`;
}

for (const box of all("[data-pick]")) {
  const run = Number(box.dataset.pick);
  const { height, width } = data.runs[run].latents;
  let cell = null;
  const pick = (event) => {
    if (!(event.target instanceof HTMLCanvasElement)) return;
    const rect = event.target.getBoundingClientRect();
    const x = Math.min(width - 1, Math.max(0, Math.floor(((event.clientX - rect.left) / rect.width) * width)));
    const y = Math.min(height - 1, Math.max(0, Math.floor(((event.clientY - rect.top) / rect.height) * height)));
    cell = y * width + x;
    mark(run, cell);
  };
  box.addEventListener("pointermove", pick);
  box.addEventListener("pointerdown", pick);
  box.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && mark(run, (cell = null)));
  box.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -width, ArrowDown: width }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    const next = cell === null ? 0 : cell + by;
    if (next >= 0 && next < width * height) mark(run, (cell = next));
  });
  box.addEventListener("blur", () => mark(run, (cell = null)));
  listen(() => cell !== null && mark(run, cell));
}
