// The list of classes, and changing it.

let offer = null;  // a class whose price was told

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
  $("ask-price").textContent = "Querying…";
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
  return `This sends ${what} to the teacher ${teacher}, ${sum}.`;
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
