// Numbers, curves and the table follow the slider. The command can be copied.

const PHASES = [
  [0.005, "Nearly pure noise. The prediction is a blur: the mean of all images that fit the prompt."],
  [0.1, "Still mostly noise. The layout is decided now: what is where, what is light and what is dark."],
  [0.5, "The large shapes are fixed. Outlines and colors settle."],
  [0.9, "More image than noise. Edges become sharp."],
  [1, "Hardly any noise is left. Only fine details change."],
];

function showNumbers() {
  for (const field of all("[data-number]")) {
    const { run, number } = field.dataset;
    const values = { ...data.runs[run].numbers[predictionStep()], ...level(Number(run)) };
    field.textContent = formatNumber(values[number], number);
  }
  const here = state.at === last ? "the last step" : `step ${level(0).step}`;
  for (const field of all(".where-now")) field.textContent = here;
}

function showPhase() {
  const share = level(0).alpha_bar;
  one("phase").textContent =
    state.at === last ? "Finished: no noise is left." : PHASES.find(([most]) => share <= most)[1];
  one("mix-signal").style.width = `${100 * share}%`;
  one("mix-signal").textContent = share > 0.3 ? `${Math.round(100 * share)} % image` : "";
  const noise = Math.min(Math.round(100 * (1 - share)), 100);
  one("mix-grain").textContent = share < 0.7 ? `${noise} % noise` : "";
}

function showCursors() {
  for (const cursor of all(".cursor")) {
    const [first, end] = [Number(cursor.dataset.first), Number(cursor.dataset.last)];
    const x = first + ((end - first) * predictionStep()) / Math.max(last - 1, 1);
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
  }
  for (const row of all("[data-row]")) row.classList.toggle("now", Number(row.dataset.row) === state.at);
  one("turns").textContent = state.at === last ? `↻ ${data.total} times` : `↻ ${level(0).step} of ${data.total}`;
}

for (const row of all("[data-row]")) row.addEventListener("click", () => move(Number(row.dataset.row)));

/** Copy the command. Browsers that have no clipboard for local files copy the selection. */
async function copy() {
  const command = one("command");
  try {
    await navigator.clipboard.writeText(command.textContent);
  } catch {
    getSelection().selectAllChildren(command);
    document.execCommand("copy");
  }
  one("copied").textContent = "Copied. Paste it in a terminal.";
}

one("copy").addEventListener("click", copy);
for (const listener of [showNumbers, showPhase, showCursors]) listen(listener);
set({});
