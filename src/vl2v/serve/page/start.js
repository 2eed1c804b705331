// What the page shows of the student, and what the user does with files and buttons.

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
  $("limits").textContent = `${about.formats.join(", ")}; at most ${megabytes(about.image_bytes)} each`;
  $("files").accept = ["image/*", ...about.suffixes].join(",");
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
