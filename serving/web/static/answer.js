/* The answer to one instance, from the verdicts down to the bars. */

import { barsTitle, describeStrip, drawBars, drawDoubt, drawStrip, LEAST_STD } from "./charts.js";
import { $, element, percent } from "./dom.js";
import { showExplanation } from "./explanation.js";
import { showVerdicts } from "./verdict.js";

const MOST_LABELS = 12;

export function showAnswer(answer, { classes, calibration }) {
  const { deterministic, mc, uncertainty, ood, decision, label_set: labelSet } = answer;
  $("hint").hidden = true;
  $("result").hidden = false;
  $("result").classList.toggle("flagged", ood.flagged === true);
  showVerdicts($("verdicts"), answer, classes);
  $("label").textContent = deterministic.label;
  $("probability").textContent = percent(deterministic.probability);
  const best = classes.indexOf(mc.label);
  const [mean, std] = [mc.mean[best], mc.std[best]];
  $("members").textContent = `Committee of ${mc.samples}`;
  $("mc-label").textContent = mc.label;
  $("mc-probability").textContent = `${percent(mean)}; ${describeSpread(mean, std)}`;
  $("decision").replaceChildren(...describeDecisions(decision).map((sentence) => element("div", "", sentence)));
  showLabelSet(labelSet, ood.flagged);
  showStrip(ood, calibration);
  showExplanation(ood);
  $("doubt").replaceChildren(...drawDoubt(uncertainty, classes));
  $("classes-title").textContent = barsTitle(classes);
  $("bars").replaceChildren(...drawBars(answer, classes));
}

/** What there was of an answer is gone, for it was another input's. */
export function hideAnswer() {
  $("result").hidden = true;
  $("hint").hidden = false;
}

/** From where to where one standard deviation of the members' probabilities reaches. */
function describeSpread(mean, std) {
  if (std < LEAST_STD) return "its members agree";
  return `its members' spread: ${percent(Math.max(0, mean - std))} to ${percent(Math.min(1, mean + std))}`;
}

/** Whether the answer is accepted, at each risk that was promised. */
function describeDecisions(decision) {
  return [decision, ...decision.others].map(({ accepted, risk, confidence, reason }) => {
    if (accepted === null) return `No decision${risk === null ? "" : ` at a risk of ${percent(risk)}`}: ${reason.replaceAll("_", " ")}.`;
    const promise = `at most ${percent(risk)} of accepted answers are wrong, with confidence ${percent(confidence)}`;
    return `${accepted ? "Accepted" : "Not accepted"}: ${promise}.`;
  });
}

/** The label set; that of a stranger promises nothing, and must not look as if it did. */
function showLabelSet({ labels, coverage }, flagged) {
  $("label-set").hidden = labels === null;
  if (labels === null) return;
  if (flagged) {
    $("label-set").replaceChildren("No label set: any class is possible, for sets promise nothing about what was flagged.");
    return;
  }
  const chips = element("span", "chips");
  chips.append(...labels.slice(0, MOST_LABELS).map((label) => element("span", "chip", label)));
  if (labels.length > MOST_LABELS) chips.append(`and ${labels.length - MOST_LABELS} more`);
  $("label-set").replaceChildren("Label set: ", chips, ` At least ${percent(coverage)} of such sets contain the true class.`);
}

function showStrip(ood, calibration) {
  if (ood.p_value === null) {
    $("strip").replaceChildren();
    $("p-value").textContent = "No p-value: there is no calibration that applies.";
    return;
  }
  $("strip").replaceChildren(...drawStrip(ood));
  const promise = calibration?.promise;
  $("p-value").textContent = `${describeStrip(ood)}.${promise ? ` Promise: ${promise}.` : ""}`;
}
