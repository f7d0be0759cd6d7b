// The pictures of the last answer: before and after with a border to move, the panels, the background.

import { byId, setText } from "./elements.js";

const NAMES = { trimap: "trimap", alpha: "alpha", cutout: "cut-out" };
const section = byId("result");
const stage = byId("stage");
const split = byId("split");
const own = byId("own-colour");
let urls = {}; // of the blobs that are shown
let shown = { name: "", photo: null };

export function startResult() {
  split.addEventListener("input", moveBorder);
  for (const radio of section.querySelectorAll("[name=shown]")) radio.addEventListener("change", showPictures);
  for (const radio of section.querySelectorAll("[name=background]")) radio.addEventListener("change", showBackground);
  own.addEventListener("input", () => {
    section.querySelector("[name=background][value=own]").checked = true;
    showBackground();
  });
  stage.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    stage.setPointerCapture(event.pointerId);
    drag(event);
  });
  stage.addEventListener("pointermove", (event) => {
    if (stage.hasPointerCapture(event.pointerId)) drag(event);
  });
  showBackground();
  moveBorder();
}

// photo: the Blob that was sent, or null where the endpoint fetched it. name: for the download and the descriptions.
export function showResult({ pictures, width, height }, photo, name) {
  for (const url of Object.values(urls)) URL.revokeObjectURL(url);
  urls = Object.fromEntries(Object.entries(pictures).map(([output, blob]) => [output, URL.createObjectURL(blob)]));
  if (photo) urls.photo = URL.createObjectURL(photo);
  shown = { name, photo };
  for (const output of Object.keys(NAMES)) {
    byId(`panel-${output}`).src = urls[output];
    byId(`panel-${output}`).alt = `${NAMES[output]} of ${name}`;
  }
  byId("panel-photo-figure").hidden = !photo;
  if (photo) byId("panel-photo").src = urls.photo;
  stage.style.setProperty("--ratio", String(width / height));
  const download = byId("download");
  download.href = urls.cutout;
  download.download = `${name.replace(/\.[^.]*$/, "").replace(/[^\w.-]+/g, "_") || "photo"}-cutout.png`;
  byId("answer").hidden = false;
  showPictures();
}

// Without the photo, which the endpoint alone has seen, the alpha is what the cut-out is compared with.
function showPictures() {
  const output = section.querySelector("[name=shown]:checked").value;
  const before = shown.photo ? "photo" : output === "alpha" ? "cutout" : "alpha";
  const words = { ...NAMES, photo: "photo" };
  byId("after").src = urls[output];
  byId("after").alt = `Right of the border: ${words[output]} of ${shown.name}`;
  byId("before").src = urls[before];
  byId("before").alt = `Left of the border: ${words[before]} of ${shown.name}`;
  byId("after").classList.toggle("on-background", output === "cutout");
  byId("before").classList.toggle("on-background", before === "cutout");
  split.dataset.before = words[before];
  split.dataset.after = words[output];
  setText(
    byId("split-label"),
    shown.photo
      ? `Before and after: photo to the left, ${words[output]} to the right`
      : `The endpoint alone has seen this photo, so: ${words[before]} to the left, ${words[output]} to the right`,
  );
  moveBorder();
}

function moveBorder() {
  const percent = Number(split.value);
  stage.style.setProperty("--split", `${percent}%`);
  const { before = "photo", after = "cut-out" } = split.dataset;
  split.setAttribute("aria-valuetext", `${percent} % ${before}, ${100 - percent} % ${after}`);
}

function drag(event) {
  const { left, width } = stage.getBoundingClientRect();
  split.value = String(Math.round((100 * (event.clientX - left)) / width));
  moveBorder();
}

function showBackground() {
  section.dataset.background = section.querySelector("[name=background]:checked").value;
  section.style.setProperty("--own", own.value);
}
