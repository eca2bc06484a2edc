/* The two verdicts: whether an input looks like the training data, and whether its answer is certain. */

import { element, percent, strangerThan } from "./dom.js";

export const GOOD = "good", DOUBT = "doubt", BAD = "bad";

const UNUSUAL = 0.1; // a p-value up to here is worth a word, though it is not flagged
const LEAST_PROBABILITY = 0.9; // where no risk is promised, this page's own rule

const FLAGS = {
  unfamiliar: "No: it does not resemble the training data.",
  uncertain: "No: the committee's members are less sure of it, or disagree about it more, than about training data.",
  out_of_range: "No: it holds values that never occurred in the training data.",
};
const UNKNOWN = {
  not_calibrated: "Unknown: this model was not calibrated, so it promises no false-alarm rate.",
  calibration_too_small: "Unknown: too few inputs were held out to calibrate several checkpoints at once.",
  not_calibrated_for_these_samples: "Unknown: flags are calibrated for the whole committee, and for auto.",
};
const SIGNS = { [GOOD]: "✓", [DOUBT]: "?", [BAD]: "✕" };
const HEADLINES = {
  [GOOD]: "Familiar, and certain",
  [DOUBT]: "In doubt",
  [BAD]: "A stranger: do not rely on the answer",
};

/** The entropy that counts as high: that of two classes as likely as each other; of two or three classes, half of the
 * most there can be. */
export const highEntropy = (classes) => Math.min(Math.LN2, Math.log(classes) / 2);

/** Does it look like the training data? */
export function judgeFamiliarity(ood) {
  if (ood.flagged === null) return { level: DOUBT, text: UNKNOWN[ood.reason] };
  if (ood.flagged) return { level: BAD, text: FLAGS[ood.reason] };
  if (ood.p_value <= UNUSUAL) return { level: DOUBT, text: `Hardly: not flagged, but ${strangerThan(ood.p_value)}.` };
  return { level: GOOD, text: `Yes: it is ${strangerThan(ood.p_value)}, which is nothing unusual.` };
}

/** Is the answer certain? */
export function judgeCertainty({ deterministic, mc, uncertainty, ood, decision }, classes) {
  if (ood.flagged) return { level: BAD, text: "It does not count: how certain a network is says nothing about strangers." };
  const doubts = [];
  if (deterministic.label !== mc.label) doubts.push(`the two answers differ (${deterministic.label}, ${mc.label})`);
  if (decision.accepted === false) doubts.push(`it is not accepted at a risk of ${percent(decision.risk)}`);
  if (uncertainty.predictive_entropy >= highEntropy(classes.length)) {
    doubts.push(`the entropy is high (${uncertainty.predictive_entropy.toFixed(2)} nats)`);
  }
  const mean = mc.mean[classes.indexOf(mc.label)];
  if (decision.accepted === null && mean < LEAST_PROBABILITY) {
    doubts.push(`the committee gives it ${percent(mean)}, less than ${percent(LEAST_PROBABILITY)}`);
  }
  if (doubts.length) return { level: DOUBT, text: `Not quite: ${doubts.join("; ")}.` };
  return { level: GOOD, text: `Yes: both answers are ${mc.label}${decision.accepted ? ", and it is accepted" : ""}.` };
}

/** The worse of both. */
export function judge(answer, classes) {
  const levels = [judgeFamiliarity(answer.ood).level, judgeCertainty(answer, classes).level];
  return [BAD, DOUBT, GOOD].find((level) => levels.includes(level));
}

/** Both verdicts with a headline; the colour is never all that tells. */
export function showVerdicts(target, answer, classes) {
  const level = judge(answer, classes);
  const headline = element("p", `headline ${level}`);
  headline.append(sign(level), element("strong", "", HEADLINES[level]));
  const rows = [
    ["Does it look like the training data?", judgeFamiliarity(answer.ood)],
    ["Is the answer certain?", judgeCertainty(answer, classes)],
  ].map(([question, verdict]) => {
    const row = element("div", `verdict ${verdict.level}`);
    const said = element("div");
    said.append(element("b", "", question), element("span", "", ` ${verdict.text}`));
    row.append(sign(verdict.level), said);
    return row;
  });
  target.dataset.level = level;
  target.replaceChildren(headline, ...rows);
}

/** A mark in the verdict's colour, for eyes alone. */
export function sign(level) {
  const mark = element("span", `sign ${level}`, SIGNS[level]);
  mark.setAttribute("aria-hidden", "true");
  return mark;
}

/** The verdict in a word or two. */
export function inShort(answer, classes) {
  const level = judge(answer, classes);
  return { level, text: level === BAD ? "flagged" : level === GOOD ? "familiar, certain" : "in doubt" };
}

