// The way of a request: a bar with a segment for each hop, the same as a table, and the last requests.

import { byId, el, keyed, setText, whole } from "./elements.js";

const KEPT = 8;
const HOPS = {
  queue: "waited: for a place, for a process, for its turn",
  fetch: "fetched, or unpacked (fetch_fn)",
  preprocess: "decoded (input_fn)",
  copy: "handed from one process to another",
  predict: "the models' work (predict_fn)",
  stage_1: "first network: the trimap",
  stage_2: "second network: the alpha",
  postprocess: "encoded (output_fn)",
  store: "stored (store_fn)",
};
const REST = "outside";
const REST_WORDS = "HTTP, this page's server, your browser";
const last = []; // newest first
let count = 0;

// hops: of one answer; totalMs: as the browser saw it.
export function showWay({ hops, totalMs, replica, status }) {
  const all = withRest(hops, totalMs);
  setText(
    byId("way-summary"),
    `${whole(totalMs)} ms as your browser saw it, ${replica === null ? "no replica took part" : `replica ${replica}`}` +
      `${status === 200 ? "" : `, status ${status || "none"}`}`,
  );
  fillBar(byId("way-bar"), all);
  byId("way-rows").replaceChildren(
    ...all.map(({ name, ms }, i) => {
      const mark = el("span", `mark hop-${name}`, String(i + 1));
      mark.setAttribute("aria-hidden", "true");
      const head = el("th", "", mark, title(name));
      head.scope = "row";
      return el("tr", "", head, el("td", "", name === REST ? REST_WORDS : (HOPS[name] ?? "")), el("td", "number", tenths(ms)));
    }),
  );
  byId("way-empty").hidden = true;
  byId("way").hidden = false;
}

// Adds a request to the last ones.
export function note(name, result) {
  count += 1;
  last.unshift({ key: String(count), name, ...result });
  last.length = Math.min(last.length, KEPT);
  const slowest = Math.max(...last.map(({ totalMs }) => totalMs));
  const rows = keyed(byId("last-rows"), last.map(({ key }) => key), (key) => {
    const request = last.find((other) => other.key === key);
    const head = el("th", "number", key);
    head.scope = "row";
    const bar = el("div", "bar small");
    fillBar(bar, withRest(request.hops, request.totalMs));
    const answer =
      request.replica === null
        ? el("td", "", request.status ? `status ${request.status}` : "none")
        : el("td", "", el("span", `replica replica-${Number(request.replica) % 4}`, `replica ${request.replica}`));
    if (request.replica !== null && request.status !== 200) answer.append(` status ${request.status}`);
    const way = el("td", "way-cell", bar);
    way.setAttribute("aria-hidden", "true");
    return el("tr", "", head, el("td", "name", request.name), way, answer, el("td", "number", whole(request.totalMs)));
  });
  rows.forEach((row, i) => row.querySelector(".bar").style.setProperty("--length", `${(100 * last[i].totalMs) / slowest}%`));
}

function withRest(hops, totalMs) {
  const rest = totalMs - hops.reduce((sum, { ms }) => sum + ms, 0);
  return [...hops, { name: REST, ms: Math.max(0, rest) }];
}

function fillBar(bar, hops) {
  const totalMs = hops.reduce((sum, { ms }) => sum + ms, 0);
  bar.replaceChildren(
    ...hops.map(({ name, ms }, i) => {
      const segment = el("span", `hop-${name}`, ms > 0.06 * totalMs ? String(i + 1) : "");
      segment.title = `${title(name)}: ${tenths(ms)} ms`;
      segment.dataset.hop = name;
      segment.style.setProperty("flex-grow", String(ms));
      return segment;
    }),
  );
}

const tenths = (ms) => ms.toLocaleString("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const title = (name) => name.replaceAll("_", " ");
