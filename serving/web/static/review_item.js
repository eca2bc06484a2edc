/* One stored answer: its input, both answers, the flag with its reason, and what was said about it. */

import { describeStrip, drawStrip } from "./charts.js";
import { $, element, list, percent } from "./dom.js";
import { drawInput, glance } from "./stored_input.js";
import { judgeFamiliarity } from "./verdict.js";

const STATES = { open: "open", labelled: "labelled", not_for_us: "not for us" };

export const stateOf = ({ state, label }) => (state === "labelled" ? `labelled ${label}` : STATES[state]);

const moment = (time, style = "medium") => new Date(time).toLocaleString(undefined, { dateStyle: style, timeStyle: style });

/** What both said, in a few words. */
function bothLabels({ deterministic, mc }) {
  if (mc === null) return `${deterministic.label} (no committee was asked)`;
  return mc.label === deterministic.label ? mc.label : `${deterministic.label}, committee ${mc.label}`;
}

const why = ({ flagged, reason }) => (flagged ? reason.replaceAll("_", " ") : flagged === null ? "not judged" : "not flagged");

/** A review in one sentence. */
export const summary = (review) => `answered ${bothLabels(review)}, ${why(review.ood)}, ${stateOf(review)}`;

/** A line of the queue. */
export function drawLine(review, chosen, choose) {
  const line = element("li", "line");
  line.id = `review-${review.id}`;
  line.setAttribute("role", "option");
  line.setAttribute("aria-selected", String(chosen));
  const said = element("span", "said");
  const state = element("span", review.state === "labelled" ? "chip good" : "chip", stateOf(review));
  const when = element("span", "small", `${why(review.ood)} · ${moment(review.time, "short")}`);
  said.append(element("b", "", bothLabels(review)), when, state);
  const look = glance(review.input);
  line.append(...(look ? [look] : []), said);
  line.addEventListener("click", choose);
  return line;
}

/** All of it. */
export function showItem(review) {
  const { model, request_id: request, row, ood, deterministic, mc, label_set: labelSet, accepted } = review;
  $("item-title").textContent = `${model.name}, version ${model.version}`;
  $("item-input").replaceChildren(...drawInput(review.input));
  const spread = mc && `${percent(mc.mean[labelPlace(mc)])} ± ${(100 * mc.std[labelPlace(mc)]).toFixed(1)}, of ${mc.samples} members`;
  list($("item-answer"), [
    ["Deterministic", `${deterministic.label} (${percent(deterministic.probability)})`],
    ["Committee", mc === null ? "was not asked" : `${mc.label} (${spread})`],
    ["Looks familiar?", judgeFamiliarity(ood).text],
    ...(accepted === null ? [] : [["Accepted?", accepted ? "yes" : "no"]]),
    ...(labelSet === null || ood.flagged ? [] : [["Label set", labelSet.join(", ")]]),
    ["Time", moment(review.time)],
    ["Request", `${request}, row ${row}`],
    ["State", stateOf(review)],
    ...(review.true_label === null ? [] : [["Feedback", review.true_label]]),
  ]);
  const known = ood.p_value !== null && ood.level !== null;
  $("item-strip").replaceChildren(...(known ? drawStrip(ood) : []));
  $("item-p-value").textContent = known ? `${describeStrip(ood)}.` : "";
}

/** Where the committee's label stands among its probabilities, of which it has the largest. */
const labelPlace = ({ mean }) => mean.indexOf(Math.max(...mean));
