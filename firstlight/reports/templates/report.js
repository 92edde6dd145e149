const answers = [...document.querySelectorAll("[data-answer]")];
let changed = false;
for (const answer of answers) {
  if (!answer.isContentEditable) answer.contentEditable = "true"; // a browser that knows no plaintext-only
  answer.addEventListener("input", () => {
    if (!answer.textContent.trim()) answer.textContent = ""; // a line break that is left over would hide the placeholder
    changed = true;
  });
}
document.getElementById("save").addEventListener("click", () => {
  const saved = document.getElementById("saved");
  saved.textContent = "";
  const page = new Blob(["<!doctype html>\n" + document.documentElement.outerHTML + "\n"], { type: "text/html" });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(page);
  link.download = document.body.dataset.file;
  link.click();
  URL.revokeObjectURL(link.href);
  changed = false;
  saved.textContent = "Saved to your downloads as " + link.download + ".";
});
addEventListener("beforeunload", (event) => {
  if (changed) event.preventDefault();
});
