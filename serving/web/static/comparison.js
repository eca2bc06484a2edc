/* The comparison: the version that answers and its shadow side by side, and the promotion. */

import { makeClock } from "./clock.js";
import { $, element, percent, short } from "./dom.js";
import { current } from "./instance.js";
import { promote, readComparison } from "./service.js";

const SECONDS = 2;
const HOW = "A shadow is a version that answers a copy of the traffic unseen: put its checkpoint into a folder of the model " +
  "repository whose name ends in .shadow, such as served/digits/2.shadow/model.ckpt.";
const STANDINGS = {
  loading: "The shadow is being loaded.",
  running: "The shadow answers a copy of the traffic.",
};
const PARTS = {
  unchanged: "fewer labels changed",
  not_newly_flagged: "fewer rows newly flagged",
  accuracy: "right as often, by true labels",
};

let name = null; // of the model that is compared

const between = (interval, write) => (interval ? ` (${write(interval[0])} to ${write(interval[1])})` : "");
const milliseconds = (seconds) => `${short(1000 * seconds)} ms`;
const share = (known) => (known?.share == null ? "–" : `${percent(known.share)}${between(known.interval, percent)}`);
const time = (known) => (known?.mean == null ? "–" : `${milliseconds(known.mean)}${between(known.interval, milliseconds)}`);

/** What stands beside each other: a term, and what both have of it; what nobody measured is left out. */
function sides({ live, shadow, accuracy, accuracy_reason: reason }) {
  return [
    ["Flagged", share(live.flagged), share(shadow.flagged)],
    ["Time of a request", time(live.seconds), time(shadow.seconds)],
    ...(accuracy ? [[`Right, of ${accuracy.rows} rows with a true label`, share(accuracy.live), share(accuracy.shadow)]] : []),
    ...(reason ? [["Right", reason]] : []),
  ];
}

/** What is said of both together. */
function together({ rows, disagreement, newly_flagged: newly, margin }) {
  return [
    ["Rows compared", String(rows)],
    ["Agreement", disagreement.share === null ? "–" : `${percent(1 - disagreement.share)}${between(disagreement.interval && [1 - disagreement.interval[1], 1 - disagreement.interval[0]], percent)}`],
    ["Newly flagged by the shadow", share(newly)],
    ["Margin", percent(margin)],
  ];
}

function drawRow([term, ...values]) {
  const row = element("tr");
  const cells = values.map((value) => element("td", "", value));
  if (cells.length === 1) cells[0].colSpan = 2;
  row.append(Object.assign(element("th", "", term), { scope: "row" }), ...cells);
  return row;
}

/** The evidence on its way to its level, by its logarithm, and what it is made of. */
function drawEvidence({ e_value: eValue, e_values: parts, promotion_level: level, promotable }) {
  const text = `Evidence that the shadow is not worse by the margin: e-value ${short(eValue)} of ${short(level)}`;
  const shown = element("p", "", `${text}${promotable ? ", which was reached" : ""}.`);
  const meter = element("meter");
  meter.max = Math.log(level);
  meter.value = Math.min(meter.max, Math.max(0, Math.log(eValue || Number.MIN_VALUE)));
  meter.setAttribute("aria-label", text);
  shown.append(meter);
  const of = Object.entries(parts).map(([part, value]) => `${PARTS[part] ?? part.replaceAll("_", " ")} ${short(value)}`);
  return [shown, element("p", "small", `By e-values for: ${of.join("; ")}. Fewer is fewer than the margin.`)];
}

function show(report) {
  const { standing, reason, live, shadow, rows } = report;
  const ended = reason ? `The shadow has ended: ${reason}.` : "The shadow has ended.";
  $("shadow-standing").textContent = `${STANDINGS[standing] ?? ended} It is version ${shadow.version} of ${name}; version ${live.version} answers.`;
  $("comparison").hidden = rows === null;
  if (rows === null) return;
  const heads = ["", `Version ${live.version}, live`, `Version ${shadow.version}, shadow`];
  $("comparison-columns").replaceChildren(...heads.map((text) => Object.assign(element(text ? "th" : "td", "", text), { scope: "col" })));
  $("comparison-rows").replaceChildren(...[...sides(report), ...together(report)].map(drawRow));
  $("comparison-evidence").replaceChildren(...drawEvidence(report));
  $("promote").classList.toggle("primary", report.promotable);
}

async function look(wanted) {
  try {
    const report = await readComparison(name);
    if (!wanted()) return;
    show(report);
    $("shadow-problem").hidden = true;
  } catch (error) {
    if (!wanted()) return;
    if (!$("access").hidden) return clock.stop(); // until a key is given
    $("comparison").hidden = true;
    const none = error.status === 404;
    $("shadow-standing").textContent = none ? `${error.detail} ${HOW}` : "";
    $("shadow-problem").hidden = none;
    $("shadow-problem").textContent = error.message;
  }
}

const clock = makeClock(SECONDS, look);

async function take(force) {
  $("promotion").textContent = "";
  $("force").hidden = true;
  try {
    const { version } = await promote(name, force);
    current.card = null; // the first view shows the version before
    $("promotion").textContent = `Version ${version} answers now.`;
  } catch (error) {
    if (!$("access").hidden) return;
    $("promotion").textContent = error.message;
    if (error.title !== "Promotion refused" || force) return; // nothing else can be forced
    $("force").hidden = false;
    $("confirm-text").textContent = error.detail;
  }
}

let watching = false;

function watch() {
  watching = true;
  $("promote").addEventListener("click", () => take(false));
  $("force").addEventListener("click", () => $("confirm").showModal());
  $("confirm").addEventListener("close", () => {
    if ($("confirm").returnValue === "yes") take(true);
    $("confirm").returnValue = "";
  });
}

/** Open the view for a model. */
export function enter(model) {
  if (!watching) watch();
  if (name !== model) {
    $("comparison").hidden = $("force").hidden = true;
    $("promotion").textContent = $("shadow-standing").textContent = "";
  }
  name = model;
  clock.start();
}

export const leave = () => clock.stop();
