// Takes photos from wherever they come, asks the endpoint once for each, and shows what it answered.

import { ask, bodyFor, whyNot } from "./ask.js";
import { byId, setText, whole } from "./elements.js";
import { startLive } from "./live.js";
import { showResult, startResult } from "./result.js";
import { note, showWay } from "./way.js";

const TIMES = 20;
const AT_A_TIME = 4;
let asking = null; // AbortController of the photo that is asked for
let repeating = null; // AbortController of "20 times"
let lastAsked = null; // { name, body }

function start() {
  startResult();
  startLive();
  byId("file").addEventListener("change", (event) => {
    const [file] = event.target.files;
    if (file) takeFile(file);
    event.target.value = ""; // the same file may be chosen again
  });
  byId("url-form").addEventListener("submit", (event) => {
    event.preventDefault();
    takeUrl(byId("url").value.trim());
  });
  for (const button of document.querySelectorAll("[data-photo]")) {
    button.addEventListener("click", () => takeSample(button.dataset.photo));
  }
  document.addEventListener("paste", paste);
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    byId("drop").classList.add("over");
  });
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) byId("drop").classList.remove("over");
  });
  document.addEventListener("drop", drop);
  byId("many").addEventListener("click", sendMany);
}

function drop(event) {
  event.preventDefault();
  byId("drop").classList.remove("over");
  const [file] = event.dataTransfer.files;
  const address = event.dataTransfer.getData("text/uri-list").split(/\r?\n/)[0];
  if (file) takeFile(file);
  else if (address) takeUrl(address);
  else fail("What was dropped is neither a file nor an address.");
}

function paste(event) {
  const [file] = event.clipboardData.files;
  const text = event.clipboardData.getData("text/plain").trim();
  if (file) {
    event.preventDefault();
    takeFile(file);
  } else if (/^(https?|s3):\/\/\S+$/.test(text) && !event.target.closest?.("input")) {
    byId("url").value = text;
    takeUrl(text);
  }
}

function takeFile(file) {
  const reason = whyNot(file);
  if (reason) fail(reason);
  else askFor(file, file.name || "photo");
}

const takeUrl = (url) => askFor(url, url.split(/[?#]/)[0].split("/").pop() || "photo");

async function takeSample(name) {
  try {
    const response = await fetch(`photos/${name}`);
    if (!response.ok) throw new Error(`status ${response.status}`);
    askFor(await response.blob(), name);
  } catch (failure) {
    fail(`The sample ${name} could not be loaded: ${failure.message}.`);
  }
}

// photo: a Blob or an address. A photo that is asked for while another is under way takes its place.
async function askFor(photo, name) {
  const side = byId("max-side");
  if (!side.checkValidity()) {
    fail(`The longest side of the result must be a whole number from ${side.min} to ${side.max}, or empty.`);
    return;
  }
  asking?.abort();
  const controller = (asking = new AbortController());
  byId("error").hidden = true;
  byId("result").setAttribute("aria-busy", "true");
  setText(byId("status"), `Asking for ${name} …`);
  try {
    const body = await bodyFor(photo, Number(side.value));
    lastAsked = { name, body };
    const result = await ask(body, controller.signal);
    if (controller.signal.aborted) return;
    note(name, result);
    showWay(result);
    if (result.error) {
      fail(result.error);
    } else {
      showResult(result, photo instanceof Blob ? photo : null, name);
      const by = result.replica === null ? "" : ` by replica ${result.replica}`;
      const size = `${result.width} × ${result.height} pixels`;
      setText(byId("status"), `${name}: answered${by} in ${whole(result.totalMs)} ms, ${size}.`);
    }
  } catch (failure) {
    if (!controller.signal.aborted) fail(`${name} could not be sent: ${failure.message}.`);
  } finally {
    if (asking === controller) byId("result").removeAttribute("aria-busy");
  }
}

function fail(text) {
  setText(byId("status"), "No new result.");
  const error = byId("error");
  error.hidden = false;
  error.textContent = text; // written again even where it is the same, so that it is read out again
}

async function sendMany() {
  if (repeating) {
    repeating.abort();
    return;
  }
  const { name, body } = lastAsked;
  const controller = (repeating = new AbortController());
  const tally = new Map();
  let sent = 0;
  let answered = 0;
  byId("many-progress").hidden = false;
  setText(byId("status"), `Sending ${name} ${TIMES} times …`);
  setText(byId("many"), "Stop sending");
  const told = () => {
    const parts = [...tally].sort().map(([who, times]) => `${who}: ${times}`);
    return `${answered} of ${TIMES} answered${parts.length ? `; ${parts.join(", ")}` : ""}`;
  };
  const show = () => {
    byId("many-bar").value = answered;
    setText(byId("many-text"), told());
  };
  const sender = async () => {
    while (sent < TIMES) {
      sent += 1;
      const result = await ask(body, controller.signal);
      answered += 1;
      const who = result.error ? (result.status ? `status ${result.status}` : "no answer") : `replica ${result.replica}`;
      tally.set(who, (tally.get(who) ?? 0) + 1);
      note(name, result);
      showWay(result);
      show();
    }
  };
  show();
  await Promise.allSettled(Array.from({ length: AT_A_TIME }, sender));
  setText(byId("status"), `${controller.signal.aborted ? "Stopped: " : ""}${told()}.`);
  setText(byId("many"), `Send it ${TIMES} times`);
  repeating = null;
}

start();
