// The list of classes, and its changes.

let offer = null;  // the class whose price is shown

function showClasses(names) {
  $("count").textContent = names.length;
  $("chips").replaceChildren(...names.map(chip));
}

function chip(name) {
  const node = el("li", { class: "chip" });
  const reset = () => node.replaceChildren(el("span", {}, name), ...(about.editable ? [remove] : []));
  const remove = el("button", { type: "button", class: "x", "aria-label": `Remove class ${name}`, onclick: confirm }, "×");
  const cancel = () => { node.classList.remove("confirming"); reset(); remove.focus(); };
  function confirm() {
    const no = el("button", { type: "button", class: "button quiet", onclick: cancel }, "Cancel");
    const yes = el("button", { type: "button", class: "button danger", onclick: () => removeClass(name, node, yes) }, "Remove");
    node.classList.add("confirming");
    node.replaceChildren(el("span", {}, `Remove ${name}?`), yes, no);
    no.focus();
  }
  node.addEventListener("keydown", (event) => { if (event.key === "Escape" && node.classList.contains("confirming")) cancel(); });
  reset();
  return node;
}

async function removeClass(name, node, button) {
  button.disabled = true;
  const index = [...$("chips").children].indexOf(node);
  try {
    const { classes } = await request(`/v1/classes/${encodeURIComponent(name)}`, { method: "DELETE" });
    changed(classes, `Class ${name} removed.`);
    ($("chips").children[Math.min(index, classes.length - 1)]?.querySelector("button") ?? $("new")).focus();
  } catch (error) {
    if (!(error instanceof RequestError)) throw error;
    node.replaceChildren(el("span", { class: "error", role: "alert" }, error.message),
      el("button", { type: "button", class: "button quiet", onclick: loadClasses }, "Close"));
  }
}

function changed(classes, text) {
  showClasses(classes);
  announce(text);
  classifyAgain((card) => card.state === "classified");
}

async function showPrice(event) {
  event.preventDefault();
  const name = $("new").value.trim();
  if (!name) return;
  endOffer();
  showError("");
  $("show-price").disabled = true;
  $("show-price").textContent = "Loading…";
  try {
    const { price } = await request("/v1/classes", asJson({ names: [name] }));
    offer = { name, price };
    $("offer-text").textContent = priced(name, price);
    $("buy").textContent = Number(price.cost) ? "Buy and add" : "Add";
    $("offer").hidden = false;
    $("buy").focus();
    announce($("offer-text").textContent);
  } catch (error) {
    if (!(error instanceof RequestError)) throw error;
    showError(error.message);
  } finally {
    $("show-price").disabled = false;
    $("show-price").textContent = "Show price";
  }
}

function priced(name, { prompts, known, cost, currency, teacher }) {
  if (known === prompts.length) return `The embedding of “${name}” is already stored, so adding this class is free.`;
  const what = prompts.length - known === 1 ? `“${prompts[prompts.length - 1]}”` : count(prompts.length - known, "text", "texts");
  const sum = Number(cost) ? `for ${cost} ${currency}` : "free of charge";
  return `Adding the class sends ${what} to the teacher ${teacher}, ${sum}.`;
}

async function buy() {
  $("buy").disabled = true;
  $("buy").textContent = "Adding…";
  try {
    const { classes, added } = await request("/v1/classes", asJson({ names: [offer.name], budget: offer.price.cost }));
    endOffer();
    $("new").value = "";
    changed(classes, `Class ${added.join(", ")} added.`);
  } catch (error) {
    if (!(error instanceof RequestError)) throw error;
    endOffer();
    showError(error.message);
  }
  $("new").focus();
}

function endOffer() {
  offer = null;
  $("offer").hidden = true;
  $("buy").disabled = false;
}

function showError(text) {
  $("add-error").textContent = text;
  $("add-error").hidden = !text;
  $("new").toggleAttribute("aria-invalid", Boolean(text));
}

async function loadClasses() {
  showClasses((await request("/v1/classes")).classes);
}
