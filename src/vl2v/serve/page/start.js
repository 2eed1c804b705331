// The description of the student, and the events of files and buttons.

async function start() {
  try {
    Object.assign(about, await request("/v1/model"));
    await loadClasses();
  } catch (error) {
    if (!(error instanceof RequestError)) throw error;
    return;
  }
  document.title = `${about.name} · vl2v`;
  $("name").textContent = about.name;
  $("meta").textContent = `${about.size} × ${about.size} pixels · ${about.int8 ? "INT8" : "float32"}`
    + (about.teacher ? ` · distilled from ${about.teacher}` : "");
  $("limits").textContent = `${about.formats.join(", ")}; at most ${megabytes(about.image_bytes)} each`;
  $("files").accept = ["image/*", ...about.suffixes].join(",");
  $("add").hidden = !about.editable;
  $("no-edits").hidden = about.editable;
  $("no-edits").textContent = about.no_edits ?? "";
  $("no-gallery").hidden = !about.no_gallery;
  $("no-gallery").textContent = about.no_gallery ? `Similar training images are not shown: ${about.no_gallery}` : "";
  if (!$("coverage").options.length) showCoverages();
}

function showCoverages() {
  const options = about.coverages.map((share) => el("option", { value: share }, `the least confident ${+(100 * (1 - share)).toFixed(1)}%`));
  $("coverage").replaceChildren(el("option", { value: "" }, "no predictions"), ...options);
  $("coverage").value = about.coverages.includes(.95) ? "0.95" : "";
  $("coverage-panel").hidden = !about.coverages.length;
}

function droppedFiles(transfer) {
  const entries = [...(transfer.items ?? [])].map((item) => item.webkitGetAsEntry?.());
  return [...transfer.files].map((file, i) => entries[i]?.isDirectory ? { name: file.name, size: 0, folder: true } : file);
}

let depth = 0;  // number of nested elements under the pointer
const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
const highlight = (on) => $("drop").classList.toggle("over", on);
addEventListener("dragenter", (event) => { if (hasFiles(event)) { depth += 1; highlight(true); } });
addEventListener("dragleave", (event) => { if (hasFiles(event)) { depth = Math.max(0, depth - 1); highlight(depth > 0); } });
addEventListener("dragover", (event) => { if (hasFiles(event)) event.preventDefault(); });
addEventListener("drop", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  depth = 0;
  highlight(false);
  addFiles(droppedFiles(event.dataTransfer));
});
addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])];
  if (files.length) { event.preventDefault(); addFiles(files); }
});
$("files").addEventListener("change", () => { addFiles([...$("files").files]); $("files").value = ""; });
$("choose").addEventListener("click", () => $("files").click());  // a file input alone ignores Enter in some browsers
$("clear").addEventListener("click", () => {
  for (const card of [...cards.values()]) removeCard(card);
  showCount();
  announce("Predictions cleared.");
  $("choose").focus();
});
$("coverage").addEventListener("change", () => classifyAgain((card) => card.state === "classified"));
$("add").addEventListener("submit", showPrice);
$("new").addEventListener("input", () => { endOffer(); showError(""); });
$("buy").addEventListener("click", buy);
$("cancel").addEventListener("click", () => { endOffer(); $("new").focus(); });
$("offer").addEventListener("keydown", (event) => { if (event.key === "Escape") { endOffer(); $("new").focus(); } });
start();
