// Images in: taking files, sending them in portions, and what becomes of each.

const MOST_CARDS = 100;
const MOST_AT_ONCE = 16;  // images of a request, so that the first answers come soon
const NEIGHBOURS = 6;
const cards = new Map();  // by number, in the order they were dropped
let last = 0;

function take(files) {
  const fresh = [];
  for (const file of files) {
    const card = { number: ++last, file, state: "looking", answer: null, url: file.folder ? null : URL.createObjectURL(file) };
    cards.set(card.number, card);
    card.node = el("li", {});
    fresh.push(card);
    if (file.folder) refuse(card, "This is a folder. Open it and drop the images inside.");
    else if (file.size > about.image_bytes) {
      refuse(card, `This file has ${megabytes(file.size)}; an image may have at most ${megabytes(about.image_bytes)}.`);
    } else draw(card);
  }
  $("cards").prepend(...fresh.map((card) => card.node));
  forgetOldest();
  showCount();
  const refused = fresh.filter((card) => card.state === "refused").length;
  if (refused) announce(`${count(refused, "file", "files")} rejected: too large, or a folder.`);
  look(fresh.filter((card) => card.state === "looking"));
}

function forgetOldest() {
  for (const card of [...cards.values()].slice(0, Math.max(0, cards.size - MOST_CARDS))) forget(card);
}

function forget(card) {
  if (card.url) URL.revokeObjectURL(card.url);
  card.node.remove();
  cards.delete(card.number);
}

function* portions(list) {
  let part = [], size = 0;
  for (const card of list) {
    if (part.length && (part.length >= Math.min(MOST_AT_ONCE, about.inputs) || size + card.file.size > .9 * about.body_bytes)) {
      yield part;
      part = [];
      size = 0;
    }
    part.push(card);
    size += card.file.size;
  }
  if (part.length) yield part;
}

async function look(list) {
  for (const part of portions(list)) {
    const form = new FormData();
    for (const card of part) form.append("files", card.file, card.file.name || "pasted image");
    const query = new URLSearchParams({ top_k: 5, neighbours: about.gallery ? NEIGHBOURS : 0 });
    if ($("coverage").value) query.set("coverage", $("coverage").value);
    try {
      const { answers, drift } = await ask(`/v1/predict?${query}`, { method: "POST", body: form });
      answers.forEach((answer, i) => settle(part[i], answer));
      showDrift(drift, answers.filter((answer) => !answer.error).length);
      announce(summary(answers));
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      for (const card of part) fail(card, error.message);
      announce(error.message);
    }
  }
}

function lookAgain(which) {
  const list = [...cards.values()].filter(which).reverse();
  for (const card of list) if (card.state === "failed") { card.state = "looking"; draw(card); }
  look(list);
}

function settle(card, answer) {
  if (answer.error) return refuse(card, answer.error.message);
  card.state = "answered";
  card.answer = answer;
  draw(card);
}

function refuse(card, why) {  // for good: the same file would be refused again
  Object.assign(card, { state: "refused", why });
  draw(card);
}

function fail(card, why) {
  Object.assign(card, { state: "failed", why });
  draw(card);
}

function summary(answers) {
  if (answers.length > 1) {
    const bad = answers.filter((answer) => answer.error).length;
    return count(answers.length - bad, "image answered", "images answered") + (bad ? `, ${bad} could not be read.` : ".");
  }
  const [answer] = answers;
  if (answer.error) return `${answer.name}: ${answer.error.message}`;
  const guess = `${answer.label}, ${percent(answer.confidence)}`;
  return `${answer.name}: ${answer.accepted === false ? `unsure, best guess ${guess}` : guess}.`;
}
