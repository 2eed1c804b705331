"use strict";

const MOST_CARDS = 100;
const MOST_AT_ONCE = 16;  // images of a request, so that the first answers come soon
const NEIGHBOURS = 6;
const RETRY_MS = 2000;

const $ = (id) => document.getElementById(id);
const about = { inputs: 64, image_bytes: 10e6, body_bytes: 64e6, coverages: [], gallery: 0, editable: false };
const cards = new Map();  // by number, in the order they were dropped
let last = 0;
let offer = null;
let away = false;

function el(tag, given = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(given)) {
    if (key === "class") node.className = value;
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== null) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

const percent = (share) => share > .999 ? ">99.9 %" : share < .001 ? "<0.1 %" : `${(100 * share).toFixed(1)} %`;
const count = (number, one, many) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e6 ? 2 : 1).replace(/\.?0+$/, "")} MB`;

function announce(text) {
  $("live").textContent = "";
  setTimeout(() => { $("live").textContent = text; }, 50);  // the same words twice are read twice
}

// --- asking the server

class Refused extends Error {}

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { cache: "no-store", ...options });
  } catch {
    if (await reachable()) throw new Refused("The file could not be read or sent. Choose it again.");
    setAway();
    throw new Refused("The server does not answer.");
  }
  const body = await answer.json().catch(() => null);
  if (!answer.ok) throw new Refused(body?.error?.message ?? `The server answered ${answer.status}.`);
  return body;
}

const asJson = (body, method = "POST") =>
  ({ method, headers: { "content-type": "application/json" }, body: JSON.stringify(body) });

async function reachable() {
  try {
    return (await fetch("/health", { cache: "no-store" })).ok;
  } catch {
    return false;
  }
}

function setAway() {
  if (away) return;
  away = true;
  $("offline").textContent = "The server does not answer. Is vl2v serve still running? This page goes on by itself once it is back.";
  $("offline").hidden = false;
  const timer = setInterval(async () => {
    if (!(await reachable())) return;
    clearInterval(timer);
    away = false;
    $("offline").hidden = true;
    announce("The server is back.");
    await start();
    lookAgain((card) => card.state !== "refused" && card.state !== "answered");
  }, RETRY_MS);
}

// --- images in

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
  if (refused) announce(`${count(refused, "file", "files")} not taken: too large, or a folder.`);
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

// --- answers out

function draw(card) {
  const name = card.file.name || "pasted image";
  const parts = [el("h3", { class: "file", id: `file-${card.number}` }, name)];
  const more = [];
  if (card.state === "looking") {
    parts.push(el("div", { class: "looking" }, el("i"), el("i"), el("i"), el("span", { class: "unseen" }, "Looking")));
  } else if (card.state === "answered") {
    parts.push(said(card.answer), ranks(card.answer.classes));
    if (card.answer.neighbours.length) more.push(near(card.answer.neighbours));
  } else {
    parts.push(el("p", { class: "fault" }, card.why));
    if (card.state === "failed") {
      const again = () => { card.state = "looking"; draw(card); look([card]); };
      parts.push(el("button", { type: "button", class: "button again", onclick: again }, "Try again"));
    }
  }
  const wrong = card.state === "refused" || card.state === "failed";
  card.node.replaceChildren(
    el("article", { class: `card${wrong ? " failed" : ""}`, "aria-labelledby": `file-${card.number}`, "aria-busy": card.state === "looking" },
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

function said(answer) {
  if (answer.accepted === false) {
    return el("p", { class: "said" }, el("strong", {}, "Unsure"),
      el("span", { class: "pill" }, `best guess ${answer.label}, ${percent(answer.confidence)}`));
  }
  return el("p", { class: "said" }, el("strong", {}, answer.label), el("span", { class: "muted" }, percent(answer.confidence)));
}

function ranks(classes) {
  const rows = classes.map(({ name, probability }) => el("li", {},
    el("span", { class: "name" }, name),
    el("span", { class: "bar", "aria-hidden": "true" }, el("i", { "data-share": probability })),
    el("span", { class: "percent" }, percent(probability))));
  return el("ol", { class: "ranks", "aria-label": "Classes by probability" }, ...rows);
}

function near(neighbours) {
  const figures = neighbours.map(({ picture, label, domain, similarity, path }) => el("li", {}, el("figure", { title: path },
    el("img", { src: picture, alt: "", loading: "lazy" }),
    el("figcaption", {}, label, el("span", {}, `${domain} · ${similarity.toFixed(2)}`)))));
  return el("div", { class: "near" }, el("h4", {}, "Nearest training images"), el("ul", {}, ...figures));
}

function showDrift(drift, images) {
  const note = $("drift");
  note.hidden = !drift || !drift.nearest;
  if (note.hidden) return;
  const which = images === 1 ? "This image looks" : `These ${images} images look`;
  note.classList.toggle("unusual", drift.unusual);
  note.textContent = drift.unusual
    ? `${which} unlike the training images (most like ${drift.nearest}). Trust the answers less.`
    : `${which} like the training images (most like ${drift.nearest}).`;
}

function showCount() {
  $("empty").hidden = cards.size > 0;
  $("clear").hidden = cards.size === 0;
  if (!cards.size) $("drift").hidden = true;
}

// --- classes

function showClasses(names) {
  $("count").textContent = names.length;
  $("chips").replaceChildren(...names.map(chip));
}

function chip(name) {
  const node = el("li", { class: "chip" });
  const rest = () => node.replaceChildren(el("span", {}, name), ...(about.editable ? [remove] : []));
  const remove = el("button", { type: "button", class: "x", "aria-label": `Remove class ${name}`, onclick: confirm }, "×");
  const keep = () => { node.classList.remove("asking"); rest(); remove.focus(); };
  function confirm() {
    const no = el("button", { type: "button", class: "button quiet", onclick: keep }, "Keep");
    const yes = el("button", { type: "button", class: "button danger", onclick: () => drop(name, node, yes) }, "Remove");
    node.classList.add("asking");
    node.replaceChildren(el("span", {}, `Remove ${name}?`), yes, no);
    no.focus();
  }
  node.addEventListener("keydown", (event) => { if (event.key === "Escape" && node.classList.contains("asking")) keep(); });
  rest();
  return node;
}

async function drop(name, node, button) {
  button.disabled = true;
  const place = [...$("chips").children].indexOf(node);
  try {
    const { classes } = await ask(`/v1/classes/${encodeURIComponent(name)}`, { method: "DELETE" });
    changed(classes, `Class ${name} removed.`);
    ($("chips").children[Math.min(place, classes.length - 1)]?.querySelector("button") ?? $("new")).focus();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    node.replaceChildren(el("span", { class: "error", role: "alert" }, error.message),
      el("button", { type: "button", class: "button quiet", onclick: loadClasses }, "Close"));
  }
}

function changed(classes, text) {
  showClasses(classes);
  announce(text);
  lookAgain((card) => card.state === "answered");
}

async function seePrice(event) {
  event.preventDefault();
  const name = $("new").value.trim();
  if (!name) return;
  endOffer();
  complain("");
  $("ask-price").disabled = true;
  $("ask-price").textContent = "Asking…";
  try {
    const { price } = await ask("/v1/classes", asJson({ names: [name] }));
    offer = { name, price };
    $("offer-text").textContent = priced(name, price);
    $("buy").textContent = Number(price.cost) ? "Buy and add" : "Add";
    $("offer").hidden = false;
    $("buy").focus();
    announce($("offer-text").textContent);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    complain(error.message);
  } finally {
    $("ask-price").disabled = false;
    $("ask-price").textContent = "See price";
  }
}

function priced(name, { prompts, known, cost, currency, teacher }) {
  if (known === prompts.length) return `“${name}” was bought before and costs nothing.`;
  const what = prompts.length - known === 1 ? `“${prompts[prompts.length - 1]}”` : count(prompts.length - known, "text", "texts");
  const sum = Number(cost) ? `for ${cost} ${currency}` : "free of charge";
  return `The teacher ${teacher} is asked about ${what}, ${sum}.`;
}

async function buy() {
  $("buy").disabled = true;
  $("buy").textContent = "Adding…";
  try {
    const { classes, added } = await ask("/v1/classes", asJson({ names: [offer.name], budget: offer.price.cost }));
    endOffer();
    $("new").value = "";
    changed(classes, `Class ${added.join(", ")} added.`);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    endOffer();
    complain(error.message);
  }
  $("new").focus();
}

function endOffer() {
  offer = null;
  $("offer").hidden = true;
  $("buy").disabled = false;
}

function complain(text) {
  $("add-error").textContent = text;
  $("add-error").hidden = !text;
  $("new").toggleAttribute("aria-invalid", Boolean(text));
}

async function loadClasses() {
  showClasses((await ask("/v1/classes")).classes);
}

// --- start

async function start() {
  try {
    Object.assign(about, await ask("/v1/model"));
    await loadClasses();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    return;
  }
  document.title = `${about.name} · vl2v`;
  $("name").textContent = about.name;
  $("meta").textContent = `${about.size} × ${about.size} pixels · ${about.int8 ? "8-bit integers" : "float32"}`
    + (about.teacher ? ` · learnt from ${about.teacher}` : "");
  $("limits").textContent = `JPEG, PNG, WebP, BMP or TIFF, at most ${megabytes(about.image_bytes)} each`;
  $("add").hidden = !about.editable;
  $("no-edits").hidden = about.editable;
  $("no-edits").textContent = about.no_edits ?? "";
  $("no-gallery").hidden = !about.no_gallery;
  $("no-gallery").textContent = about.no_gallery ? `No training images are shown: ${about.no_gallery}` : "";
  if (!$("coverage").options.length) showCoverages();
}

function showCoverages() {
  const options = about.coverages.map((share) => el("option", { value: share }, `to the least sure ${+(100 * (1 - share)).toFixed(1)} %`));
  $("coverage").replaceChildren(el("option", { value: "" }, "never"), ...options);
  $("coverage").value = about.coverages.includes(.95) ? ".95".replace(".", "0.") : "";
  $("sure-panel").hidden = !about.coverages.length;
}

function dropped(transfer) {
  const entries = [...(transfer.items ?? [])].map((item) => item.webkitGetAsEntry?.());
  return [...transfer.files].map((file, i) => entries[i]?.isDirectory ? { name: file.name, size: 0, folder: true } : file);
}

let inside = 0;
const holdsFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
const over = (on) => $("drop").classList.toggle("over", on);
addEventListener("dragenter", (event) => { if (holdsFiles(event)) { inside += 1; over(true); } });
addEventListener("dragleave", (event) => { if (holdsFiles(event)) { inside = Math.max(0, inside - 1); over(inside > 0); } });
addEventListener("dragover", (event) => { if (holdsFiles(event)) event.preventDefault(); });
addEventListener("drop", (event) => {
  if (!holdsFiles(event)) return;
  event.preventDefault();
  inside = 0;
  over(false);
  take(dropped(event.dataTransfer));
});
addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])];
  if (files.length) { event.preventDefault(); take(files); }
});
$("files").addEventListener("change", () => { take([...$("files").files]); $("files").value = ""; });
$("choose").addEventListener("click", () => $("files").click());  // a file input alone ignores Enter in some browsers
$("clear").addEventListener("click", () => {
  for (const card of [...cards.values()]) forget(card);
  showCount();
  announce("Answers cleared.");
  $("choose").focus();
});
$("coverage").addEventListener("change", () => lookAgain((card) => card.state === "answered"));
$("add").addEventListener("submit", seePrice);
$("new").addEventListener("input", () => { endOffer(); complain(""); });
$("buy").addEventListener("click", buy);
$("cancel").addEventListener("click", () => { endOffer(); $("new").focus(); });
$("offer").addEventListener("keydown", (event) => { if (event.key === "Escape") { endOffer(); $("new").focus(); } });
start();
