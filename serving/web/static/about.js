/* What is known about a model. */

import { $, list, percent, short } from "./dom.js";

const MOST_CLASSES = 50, MOST_COLUMNS = 20;

function describe(input) {
  if (input.kind === "text") return `text; its first ${input.tokenizer.length} tokens, of ${input.tokenizer.vocabulary}`;
  if (input.kind === "table") return `row with columns ${cut(input.columns.map(({ name }) => name), MOST_COLUMNS)}`;
  return `${input.kind}, shape ${input.shape.join(" × ")}; training values lay in ${short(input.low)} to ${short(input.high)}`;
}

function cut(names, most) {
  return names.slice(0, most).join(", ") + (names.length > most ? `, and ${names.length - most} more` : "");
}

/** What was measured on rows that were used for nothing else. */
function describeMeasured(measured) {
  if (!measured) return "not recorded";
  const { rows, accuracy, mc_accuracy: mc, flagged } = measured;
  return `on ${rows} test rows: ${percent(accuracy)} right (committee ${percent(mc)}), and ${percent(flagged)} flagged, which are false alarms`;
}

export function showAbout({ name, version, checkpoints, input, classes, network, committee, calibration, decisions, label_set: labelSet, provenance }) {
  const sites = `${committee.sites.length} dropout sites (p = ${[...new Set(committee.sites.map((site) => short(site.p)))].join(", ")})`;
  const promises = [calibration?.promise, ...decisions.map((each) => each.promise), labelSet?.promise].filter(Boolean);
  list($("about"), [
    ["Name", `${name}, version ${version}${checkpoints ? `, an ensemble of ${checkpoints.length} checkpoints` : ""}`],
    ["Input", describe(input)],
    ["Classes", cut(classes, MOST_CLASSES)],
    ["Network", `${network.class_path.split(".").pop()}, ${sites}`],
    ["Committee", `${committee.num_samples} members, drawn once${committee.seed === null ? "" : ` from seed ${committee.seed}`}`],
    ["Calibration", calibration ? `${calibration.n} held-out inputs, by ${calibration.scores.join(", ").replaceAll("_", " ")}` : "none"],
    ["Promises", promises.length ? `${promises.join("; ")}.` : "none"],
    ["Measured", describeMeasured(provenance?.measured)],
    ["Trained on", provenance?.data ?? "not recorded"],
    ["Calibrated on", provenance?.date ? new Date(provenance.date).toLocaleDateString(undefined, { dateStyle: "long" }) : "not recorded"],
  ]);
}
