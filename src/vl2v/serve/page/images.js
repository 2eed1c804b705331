// Input: add image files, send them in batches, and update their cards.

const MAX_CARDS = 100;
const BATCH = 16;  // images per request, so that the first predictions appear soon
const NEIGHBOURS = 6;
const cards = new Map();  // by number, in the order in which they were added
let last = 0;

function addFiles(files) {
  const fresh = [];
  for (const file of files) {
    const card = { number: ++last, file, state: "pending", answer: null, url: file.folder ? null : URL.createObjectURL(file) };
    cards.set(card.number, card);
    card.node = el("li", {});
    fresh.push(card);
    if (file.folder) reject(card, "This is a folder. Drop the images in it instead.");
    else if (file.size > about.image_bytes) {
      reject(card, `The file size is ${megabytes(file.size)}. The limit is ${megabytes(about.image_bytes)} per image.`);
    } else render(card);
  }
  $("cards").prepend(...fresh.map((card) => card.node));
  removeOldest();
  showCount();
  const rejected = fresh.filter((card) => card.state === "rejected").length;
  if (rejected) announce(`${count(rejected, "file", "files")} rejected: too large, or a folder.`);
  classify(fresh.filter((card) => card.state === "pending"));
}

function removeOldest() {
  for (const card of [...cards.values()].slice(0, Math.max(0, cards.size - MAX_CARDS))) removeCard(card);
}

function removeCard(card) {
  if (card.url) URL.revokeObjectURL(card.url);
  card.node.remove();
  cards.delete(card.number);
}

function* batches(list) {
  let batch = [], size = 0;
  for (const card of list) {
    if (batch.length && (batch.length >= Math.min(BATCH, about.inputs) || size + card.file.size > .9 * about.body_bytes)) {
      yield batch;
      batch = [];
      size = 0;
    }
    batch.push(card);
    size += card.file.size;
  }
  if (batch.length) yield batch;
}

async function classify(list) {
  for (const batch of batches(list)) {
    const form = new FormData();
    for (const card of batch) form.append("files", card.file, card.file.name || "pasted image");
    const query = new URLSearchParams({ top_k: 5, neighbours: about.gallery ? NEIGHBOURS : 0 });
    if ($("coverage").value) query.set("coverage", $("coverage").value);
    try {
      const { answers, drift } = await request(`/v1/predict?${query}`, { method: "POST", body: form });
      answers.forEach((answer, i) => showAnswer(batch[i], answer));
      showDrift(drift, answers.filter((answer) => !answer.error).length);
      announce(summary(answers));
    } catch (error) {
      if (!(error instanceof RequestError)) throw error;
      for (const card of batch) fail(card, error.message);
      announce(error.message);
    }
  }
}

function classifyAgain(which) {
  const list = [...cards.values()].filter(which).reverse();
  for (const card of list) if (card.state === "failed") { card.state = "pending"; render(card); }
  classify(list);
}

function showAnswer(card, answer) {
  if (answer.error) return reject(card, answer.error.message);
  card.state = "classified";
  card.answer = answer;
  render(card);
}

function reject(card, why) {  // permanently: the same file would be rejected again
  Object.assign(card, { state: "rejected", why });
  render(card);
}

function fail(card, why) {
  Object.assign(card, { state: "failed", why });
  render(card);
}

function summary(answers) {
  if (answers.length > 1) {
    const bad = answers.filter((answer) => answer.error).length;
    return count(answers.length - bad, "image classified", "images classified") + (bad ? `, ${bad} could not be read.` : ".");
  }
  const [answer] = answers;
  if (answer.error) return `${answer.name}: ${answer.error.message}`;
  const guess = `${answer.label}, ${percent(answer.confidence)}`;
  return `${answer.name}: ${answer.accepted === false ? `unsure, most likely ${guess}` : guess}.`;
}
