// What the endpoint does now, from its /metrics, once a second while somebody can see it.

import { byId, el, keyed, setText, whole } from "./elements.js";

const INTERVAL_MS = 1000;
const ANSWER_LIMIT_MS = 5000;
const KEPT = 60;
const HEALTH = {
  healthy: "The endpoint is healthy",
  below_minimum: "The endpoint has fewer healthy replicas than it needs",
  draining: "The endpoint is stopping",
};
const STATES = {
  busy: "busy",
  no_traffic: "no request was there",
  fetch: "fetch: the photo was being fetched",
  decode: "decode: input_fn",
  encode: "encode: output_fn",
  copy: "copy to the device",
  batch_wait: "waiting for a turn or a batch",
  other_stage: "the other stage had it",
  replacing: "a replica was being replaced",
};
const flow = []; // { inFlight, waiting } of each second
let timer = 0;
let paused = false;
let known = true; // until the endpoint says that it has no /metrics

export function startLive() {
  byId("pause").addEventListener("click", () => {
    paused = !paused;
    byId("pause").setAttribute("aria-pressed", String(paused));
    again(0);
  });
  document.addEventListener("visibilitychange", () => again(0));
  again(0);
}

function again(delay) {
  clearTimeout(timer);
  if (!paused && known && !document.hidden) timer = setTimeout(poll, delay);
}

async function poll() {
  const mine = timer;
  const started = performance.now();
  try {
    const answer = await fetch("metrics", {
      headers: { Accept: "application/json" },
      signal: AbortSignal.timeout(ANSWER_LIMIT_MS),
    });
    show(answer.status, await answer.json().catch(() => null));
  } catch {
    say("This page's own server does not answer: is `make serve` still running?", "bad");
  }
  // Unless somebody has paused it meanwhile, or a newer question is under way.
  if (timer === mine) again(Math.max(0, INTERVAL_MS - (performance.now() - started)));
}

function show(status, figures) {
  if (status === 404) {
    known = false;
    byId("live").hidden = byId("pause").hidden = true;
    say(
      "This endpoint tells nothing of itself: multi-model-server has no /metrics. Everything else on this page works. " +
        "To see it live, start it with MULTIGPU_FRONT_END=http.",
      "",
    );
  } else if (status !== 200 || !figures?.replicas) {
    say(`No figures: ${figures?.message ?? `status ${status}`}.`, "bad");
  } else {
    const replicas = Object.keys(figures.replicas).length;
    const words = HEALTH[figures.health] ?? `The endpoint says ${figures.health}`;
    say(`${words}; ${replicas} ${replicas === 1 ? "replica" : "replicas"}.`, figures.health === "healthy" ? "good" : "bad");
    byId("live").hidden = false;
    showFigures(figures);
    showReplicas(figures.replicas);
    showDevices(figures.devices);
    setText(byId("live-advice"), sentence(figures.advice));
  }
}

// Read out only when it says something else than before.
function say(text, kind) {
  const status = byId("live-status");
  setText(status, text);
  status.className = kind;
}

function showFigures({ in_flight, waiting, requests }) {
  const values = {
    "In flight": whole(in_flight),
    Waiting: whole(waiting),
    Requests: whole(requests.total),
    Failed: whole(requests.server_errors),
    Refused: whole(requests.refused),
    "Half took at most": seconds(requests.p50_s),
    "99 of 100 at most": seconds(requests.p99_s),
  };
  const groups = keyed(byId("live-figures"), Object.keys(values), (key) => el("div", "", el("dt", "", key), el("dd", "")));
  groups.forEach((group, i) => setText(group.lastChild, Object.values(values)[i]));
  showFlow(in_flight, waiting);
}

function showFlow(inFlight, waiting) {
  flow.push({ inFlight, waiting });
  if (flow.length > KEPT) flow.shift();
  const most = Math.max(1, ...flow.map((moment) => moment.inFlight));
  const line = (of) => {
    const points = flow.map((moment, i) => `${KEPT - flow.length + i} ${(19 - (18 * of(moment)) / most).toFixed(2)}`);
    return `M${points.join("L")}h1`;
  };
  const svg = byId("flow");
  svg.querySelector(".in-flight").setAttribute("d", line((moment) => moment.inFlight));
  svg.querySelector(".waiting").setAttribute("d", line((moment) => moment.waiting));
  const highest = (of) => whole(Math.max(...flow.map(of)));
  setText(
    byId("flow-text"),
    `In the last minute at most ${highest((moment) => moment.inFlight)} in flight (line), ` +
      `of which ${highest((moment) => moment.waiting)} waiting to be let in (dashes).`,
  );
}

function showReplicas(replicas) {
  const names = Object.keys(replicas);
  const rows = keyed(byId("live-replicas"), names, (name) => {
    const head = el("th", "", name.replace("-", " "), el("small", ""));
    head.scope = "row";
    return el("tr", "", head, el("td", "number"), el("td", "number"), el("td", "number"));
  });
  rows.forEach((row, i) => {
    const { devices, in_flight, requests, restarts, pid } = replicas[names[i]];
    setText(row.querySelector("small"), ` ${devices.join(", then ")}${pid === null ? " (being replaced)" : ""}`);
    [in_flight, requests, restarts].forEach((value, j) => setText(row.children[j + 1], whole(value)));
  });
}

function showDevices(devices) {
  const names = Object.keys(devices);
  const items = keyed(byId("live-devices"), names, (name) => {
    const bar = el("div", "bar");
    bar.setAttribute("aria-hidden", "true");
    return el("li", "", el("h4", "", name), bar, el("ul", "shares"));
  });
  items.forEach((item, i) => {
    const recent = Object.entries(devices[names[i]].recent_s);
    const elapsed = recent.reduce((sum, [, time]) => sum + time, 0);
    const present = recent.filter(([, time]) => elapsed > 0 && time / elapsed >= 0.005);
    const states = present.map(([state]) => state);
    const [, bar, list] = item.children;
    const segments = keyed(bar, states, (state) => el("span", `state-${state}`));
    segments.forEach((segment, j) => segment.style.setProperty("flex-grow", String(present[j][1])));
    const shares = keyed(list, states.length ? states : ["none"], (state) => {
      const mark = el("span", `mark state-${state}`);
      return state === "none" ? el("li", "", "nothing known yet") : el("li", "", mark, el("b", ""), ` ${words(state)}`);
    });
    present.forEach(([, time], j) => setText(shares[j].querySelector("b"), `${Math.round((100 * time) / elapsed)} %`));
  });
}

const words = (state) => STATES[state] ?? state.replaceAll("_", " ");
const seconds = (value) => (value < 1 ? `${whole(value * 1000)} ms` : `${value.toFixed(2)} s`);
const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);
