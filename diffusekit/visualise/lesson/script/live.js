// Numbers, curves and the table follow the slider; the command can be copied.

const PHASES = [
  [0.005, "Nearly pure noise. The guess is a blur: the mean of everything the words could mean."],
  [0.1, "Still mostly noise, but the large decisions fall now: what lies where, what is light and what is dark."],
  [0.5, "The large shapes stand. Outlines and colors settle."],
  [0.9, "More picture than noise. Edges become sharp."],
  [1, "Hardly any noise left. Only the finest detail changes."],
];

function numbers() {
  for (const place of all("[data-number]")) {
    const found = level(Number(place.dataset.run));
    place.textContent = said(found[place.dataset.number], place.dataset.number);
  }
  const here = state.at === last ? "the last step" : `step ${level(0).step}`;
  for (const place of all(".where-now")) place.textContent = here;
}

function phase() {
  const share = level(0).alpha_bar;
  one("phase").textContent =
    state.at === last ? "Finished: no noise is left." : PHASES.find(([most]) => share <= most)[1];
  one("mix-signal").style.width = `${100 * share}%`;
  one("mix-signal").textContent = share > 0.3 ? `${Math.round(100 * share)} % picture` : "";
  const noise = Math.min(Math.round(100 * (1 - share)), 100);
  one("mix-grain").textContent = share < 0.7 ? `${noise} % noise` : "";
}

function cursors() {
  for (const cursor of all(".cursor")) {
    const x = 4 + (312 * asked()) / Math.max(last - 1, 1);
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
  }
  for (const row of all("[data-row]")) row.classList.toggle("now", Number(row.dataset.row) === state.at);
  one("turns").textContent = state.at === last ? `↻ ${data.total} times` : `↻ ${level(0).step} of ${data.total}`;
}

for (const row of all("[data-row]")) row.addEventListener("click", () => move(Number(row.dataset.row)));

/** Copy by the clipboard, or, where a browser has none for files, by selecting. */
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
for (const listener of [numbers, phase, cursors]) listen(listener);
set({});
