// One request to the endpoint and what came back, whatever that was: a failure is a value too, with words for it.

const ATTRIBUTES_HEADER = "X-Amzn-SageMaker-Custom-Attributes";
const OUTPUTS = ["trimap", "alpha", "cutout"];
// The endpoint takes 25 MB, and base64 makes four bytes of three.
const MAX_PHOTO_MB = 18;

// The body of a request for a photo: a Blob, or the address of one.
export async function bodyFor(photo, maxSide) {
  const source = photo instanceof Blob ? { image: await base64(photo) } : { url: photo };
  return JSON.stringify({ ...source, output: OUTPUTS, ...(maxSide ? { max_side: maxSide } : {}) });
}

// Why a file is not worth sending, or "".
export function whyNot(file) {
  if (file.type && !file.type.startsWith("image/")) return `${file.name} is not a picture: its type is ${file.type}.`;
  const mb = file.size / 1e6;
  return mb > MAX_PHOTO_MB ? `${file.name} has ${mb.toFixed(1)} MB; the endpoint takes up to ${MAX_PHOTO_MB} MB this way.` : "";
}

// Returns { pictures, width, height, hops, replica, totalMs, status, error }; error is "" where there are pictures.
export async function ask(body, signal) {
  const started = performance.now();
  const nothing = { pictures: null, hops: [], replica: null, status: 0 };
  const asked = (rest) => ({ ...nothing, ...rest, totalMs: performance.now() - started });
  let response, text;
  try {
    response = await fetch("invocations", {
      method: "POST",
      headers: { "Content-Type": "application/json", Accept: "application/json" },
      body,
      signal,
    });
    text = await response.text();
  } catch (failure) {
    if (failure.name === "AbortError") throw failure;
    return asked({ error: "This page's own server does not answer: is `make serve` still running?" });
  }
  const attributes = parseAttributes(response.headers.get(ATTRIBUTES_HEADER) ?? "");
  const result = asked({ status: response.status, hops: hopsOf(attributes), replica: attributes.get("replica") ?? null });
  const answer = parseJson(text);
  if (!response.ok) return { ...result, error: inWords(response.status, answer) };
  const missing = OUTPUTS.filter((name) => typeof answer?.[name] !== "string");
  if (missing.length) return { ...result, error: `The endpoint's answer has no ${missing.join(", no ")}.` };
  const pictures = Object.fromEntries(OUTPUTS.map((name) => [name, blobOf(answer[name], answer.content_type)]));
  return { ...result, pictures, width: answer.width, height: answer.height, error: "" };
}

// request_id=…;replica=1;queue_ms=1.5, perhaps padded with spaces.
function parseAttributes(text) {
  const pairs = text.trim().split(";").filter(Boolean);
  return new Map(pairs.map((pair) => [pair.split("=", 1)[0], pair.slice(pair.indexOf("=") + 1)]));
}

// The endpoint names the hops in the order of the way.
function hopsOf(attributes) {
  return [...attributes]
    .filter(([name, value]) => name.endsWith("_ms") && Number.isFinite(Number(value)))
    .map(([name, value]) => ({ name: name.slice(0, -"_ms".length), ms: Number(value) }));
}

function inWords(status, answer) {
  const message = typeof answer?.message === "string" ? answer.message : "it gave no reason";
  const again = answer?.retry_after_s ? ` Try again in ${answer.retry_after_s} s.` : "";
  return `Status ${status}: ${message}.${again}`;
}

function parseJson(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

async function base64(blob) {
  const url = await new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
  return url.slice(url.indexOf(",") + 1);
}

function blobOf(text, type) {
  return new Blob([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))], { type });
}
