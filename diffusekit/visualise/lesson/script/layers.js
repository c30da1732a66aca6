// The boxes of the overview open and close the explanations below it.

const bodyOf = (name) => one(`body-${name}`);

function unfold(name, open) {
  const body = bodyOf(name);
  body.hidden = !open;
  for (const button of all(`[data-layer="${name}"]`)) button.setAttribute("aria-expanded", String(open));
  const folded = all(".unfold").some((button) => button.getAttribute("aria-expanded") === "false");
  one("all").textContent = folded ? "Open everything" : "Close everything";
}

for (const button of all(".unfold")) {
  const name = button.dataset.layer;
  button.addEventListener("click", () => unfold(name, bodyOf(name).hidden));
  unfold(name, false);
}

for (const box of all(".box")) {
  const name = box.dataset.layer;
  box.addEventListener("click", () => {
    const open = bodyOf(name).hidden;
    unfold(name, open);
    if (open) {
      one(`layer-${name}`).scrollIntoView({ behavior: reducedMotion.matches ? "auto" : "smooth", block: "start" });
    }
  });
}

one("all").addEventListener("click", () => {
  const open = all(".unfold").some((button) => button.getAttribute("aria-expanded") === "false");
  for (const button of all(".unfold")) unfold(button.dataset.layer, open);
});

addEventListener("beforeprint", () => all(".unfold").forEach((button) => unfold(button.dataset.layer, true)));
