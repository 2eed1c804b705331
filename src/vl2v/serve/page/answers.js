// Output: a card for each image.

function render(card) {
  const name = card.file.name || "pasted image";
  const parts = [el("h3", { class: "file", id: `file-${card.number}` }, name)];
  const more = [];
  if (card.state === "pending") {
    parts.push(el("div", { class: "pending" }, el("i"), el("i"), el("i"), el("span", { class: "visually-hidden" }, "Classifying")));
  } else if (card.state === "classified") {
    parts.push(prediction(card.answer), ranking(card.answer.classes));
    if (card.answer.neighbours.length) more.push(similarImages(card.answer.neighbours));
  } else {
    parts.push(el("p", { class: "fault" }, card.why));
    if (card.state === "failed") {
      const again = () => { card.state = "pending"; render(card); classify([card]); };
      parts.push(el("button", { type: "button", class: "button again", onclick: again }, "Try again"));
    }
  }
  const wrong = card.state === "rejected" || card.state === "failed";
  card.node.replaceChildren(
    el("article", { class: `card${wrong ? " failed" : ""}`, "aria-labelledby": `file-${card.number}`, "aria-busy": card.state === "pending" },
      thumb(card, name), el("div", { class: "main" }, ...parts, ...(innerWidth > 544 ? more : [])),
      innerWidth > 544 || !more.length ? null : el("div", { class: "wide" }, ...more)));
  for (const bar of card.node.querySelectorAll("[data-share]")) {
    requestAnimationFrame(() => bar.style.setProperty("width", `${100 * bar.dataset.share}%`));
  }
}

function thumb(card, name) {
  const kind = (name.match(/\.(\w{1,5})$/)?.[1] ?? "file").toUpperCase();
  const frame = el("div", { class: "thumb" });
  if (!card.url) frame.append("folder");
  else frame.append(el("img", { src: card.url, alt: "", onerror: () => frame.replaceChildren(kind) }));
  return frame;
}

function prediction(answer) {
  if (answer.accepted === false) {
    return el("p", { class: "prediction" }, el("strong", {}, "Unsure"),
      el("span", { class: "pill" }, `most likely ${answer.label}, ${percent(answer.confidence)}`));
  }
  return el("p", { class: "prediction" }, el("strong", {}, answer.label), el("span", { class: "muted" }, percent(answer.confidence)));
}

function ranking(classes) {
  const rows = classes.map(({ name, probability }) => el("li", {},
    el("span", { class: "name" }, name),
    el("span", { class: "bar", "aria-hidden": "true" }, el("i", { "data-share": probability })),
    el("span", { class: "percent" }, percent(probability))));
  return el("ol", { class: "ranks", "aria-label": "Classes by probability" }, ...rows);
}

function similarImages(neighbours) {
  const figures = neighbours.map(({ picture, label, domain, similarity, path }) => el("li", {}, el("figure", { title: path },
    el("img", { src: picture, alt: "", loading: "lazy" }),
    el("figcaption", {}, label, el("span", {}, `${domain} · ${similarity.toFixed(2)}`)))));
  return el("div", { class: "similar" }, el("h4", {}, "Similar training images"), el("ul", {}, ...figures));
}

function showDrift(drift, images) {
  const note = $("drift");
  note.hidden = !drift || !drift.nearest;
  if (note.hidden) return;
  const which = images === 1 ? "This image is" : `These ${images} images are`;
  note.classList.toggle("unusual", drift.unusual);
  note.textContent = drift.unusual
    ? `${which} unlike the training images (most similar domain: ${drift.nearest}). The predictions are less reliable.`
    : `${which} similar to the training images (most similar domain: ${drift.nearest}).`;
}

function showCount() {
  $("empty").hidden = cards.size > 0;
  $("clear").hidden = cards.size === 0;
  if (!cards.size) $("drift").hidden = true;
}
