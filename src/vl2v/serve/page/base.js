// Helpers for all parts of the page, and requests to the server.
"use strict";

const $ = (id) => document.getElementById(id);
const about = { inputs: 64, formats: [], suffixes: [], image_bytes: 10e6, body_bytes: 64e6, coverages: [], gallery: 0, editable: false };

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") node.className = value;
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== null) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

const percent = (share) => share > .999 ? ">99.9%" : share < .001 ? "<0.1%" : `${(100 * share).toFixed(1)}%`;
const count = (number, one, many) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e6 ? 2 : 1).replace(/\.?0+$/, "")} MB`;

function announce(text) {
  $("live").textContent = "";
  setTimeout(() => { $("live").textContent = text; }, 50);  // a screen reader also reads the same text a second time
}

const RETRY_MS = 2000;
let offline = false;

class RequestError extends Error {}

async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { cache: "no-store", ...options });
  } catch {
    if (await reachable()) throw new RequestError("The file could not be read or sent. Choose it again.");
    showOffline();
    throw new RequestError("The server does not respond.");
  }
  const body = await response.json().catch(() => null);
  if (!response.ok) throw new RequestError(body?.error?.message ?? `The server responded with status ${response.status}.`);
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

function showOffline() {
  if (offline) return;
  offline = true;
  $("offline").textContent = "The server does not respond. Check that vl2v serve is running. This page reconnects automatically.";
  $("offline").hidden = false;
  const timer = setInterval(async () => {
    if (!(await reachable())) return;
    clearInterval(timer);
    offline = false;
    $("offline").hidden = true;
    announce("The server responds again.");
    await start();
    classifyAgain((card) => card.state !== "rejected" && card.state !== "classified");
  }, RETRY_MS);
}
