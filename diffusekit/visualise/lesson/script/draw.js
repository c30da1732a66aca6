// Draw attention maps and latents on canvases: bytes become colors.

const MAGMA = [
  [0, 0, 4], [28, 16, 68], [79, 18, 123], [129, 37, 129], [181, 54, 122],
  [229, 80, 100], [251, 135, 97], [254, 194, 135], [252, 253, 191],
];
const RED_BLUE = [
  [5, 48, 97], [33, 102, 172], [67, 147, 195], [146, 197, 222], [247, 247, 247],
  [244, 165, 130], [214, 96, 77], [178, 24, 43], [103, 0, 31],
];

function colorTable(stops) {
  const colors = [];
  for (let i = 0; i < 256; i++) {
    const position = (i / 255) * (stops.length - 1);
    const low = Math.min(Math.floor(position), stops.length - 2);
    colors.push(stops[low].map((c, k) => Math.round(c + (stops[low + 1][k] - c) * (position - low))));
  }
  return colors;
}

const magma = colorTable(MAGMA);
const redBlue = colorTable(RED_BLUE);

/** Paint values 0–255 on a canvas, one pixel each. `opacity` gives the opacity of a value. */
function paint(canvas, values, width, height, colors, opacity) {
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  for (let i = 0; i < values.length; i++) {
    const [r, g, b] = colors[values[i]];
    image.data.set([r, g, b, opacity ? opacity(values[i]) : 255], 4 * i);
  }
  context.putImageData(image, 0, 0);
}

for (const run of data.runs) {
  for (const kind of ["noised", "denoised"]) run.latents[kind] = decodeBytes(run.latents[kind]);
  if (run.attention) run.attention.maps = decodeBytes(run.attention.maps);
}

/** One channel of a run's latents at a step. */
function channel(run, kind, at, number) {
  const { channels, height, width } = data.runs[run].latents;
  const start = (at * channels + number) * height * width;
  return data.runs[run].latents[kind].subarray(start, start + height * width);
}

/** The value of a cell, in the latents' own units. */
function valueOf(run, kind, at, number, cell) {
  return (channel(run, kind, at, number)[cell] / 127.5 - 1) * data.runs[run].latents.most;
}

/** A word's map at a step, or its mean over all steps. In each map, 255 is the highest share. */
function wordMap(run, word, at) {
  const { words, height, width, maps, most, share } = data.runs[run].attention;
  const row = state.mean ? last : at;
  const start = (row * words.length + word) * height * width;
  return {
    values: maps.subarray(start, start + height * width),
    most: most[row][word],
    share: share[row][word],
    width,
    height,
  };
}

for (const box of all("[data-latents]")) {
  const run = Number(box.dataset.run);
  const { channels } = data.runs[run].latents;
  box.style.setProperty("--count", channels);
  box.style.setProperty("--across", Math.ceil(Math.sqrt(channels)));
  for (let i = 0; i < channels; i++) {
    const canvas = document.createElement("canvas");
    canvas.setAttribute("role", "img");
    box.append(canvas);
  }
}

listen(() => {
  for (const box of all("[data-latents]")) {
    const run = Number(box.dataset.run);
    const kind = box.dataset.latents;
    const at = box.dataset.at === undefined ? state.at : Number(box.dataset.at);
    const { height, width } = data.runs[run].latents;
    const when = at === last ? "of the final image" : `at step ${data.runs[run].numbers[at].step}`;
    all("canvas", box).forEach((canvas, i) => {
      paint(canvas, channel(run, kind, at, i), width, height, redBlue);
      canvas.setAttribute("aria-label", `Channel ${i + 1} of the latents ${when}`);
    });
  }
});
