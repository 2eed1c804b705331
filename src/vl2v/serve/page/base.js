// What all parts of the page use, and asking the server.
"use strict";

const $ = (id) => document.getElementById(id);
const about = { inputs: 64, formats: [], suffixes: [], image_bytes: 10e6, body_bytes: 64e6, coverages: [], gallery: 0, editable: false };

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

const RETRY_MS = 2000;
let away = false;

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
  $("offline").textContent = "The server does not answer. Is vl2v serve still running? This page continues automatically when it is back.";
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
