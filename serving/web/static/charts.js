/* Charts: bars of classes with whiskers, the p-value on its strip, the entropies in one bar. */

import { element, percent, pValue, strangerThan } from "./dom.js";

const MOST_BARS = 12;
export const LEAST_STD = 0.005; // less cannot be seen

const capital = (text) => text[0].toUpperCase() + text.slice(1);

const within = (share) => Math.min(1, Math.max(0, share));

function place(mark, from, width) {
  mark.style.left = `${100 * within(from)}%`;
  if (width !== undefined) mark.style.width = `${100 * within(width)}%`;
  return mark;
}

function bar(kind, value, std) {
  const track = element("div", `track ${kind}`);
  track.append(place(element("div", "bar"), 0, value));
  if (std > LEAST_STD) {
    const from = within(value - std);
    track.append(place(element("div", "whisker"), from, within(value + std) - from));
  }
  return track;
}

/** Of each class both answers; of many classes the likeliest. */
export function drawBars({ deterministic, mc }, classes) {
  let shown = classes.map((_, i) => i);
  if (classes.length > MOST_BARS) shown = shown.sort((a, b) => mc.mean[b] - mc.mean[a]).slice(0, MOST_BARS);
  return shown.map((i) => {
    const item = element("li", classes[i] === mc.label ? "top" : "");
    const said = element("span", "number", percent(deterministic.probabilities[i]));
    said.prepend(element("span", "unseen", "deterministic "));
    const mean = element("span", "number", `${percent(mc.mean[i])} ± ${(100 * mc.std[i]).toFixed(1)}`);
    mean.prepend(element("span", "unseen", "committee "));
    const chart = element("div", "chart");
    chart.setAttribute("aria-hidden", "true");
    chart.append(bar("deterministic", deterministic.probabilities[i]), bar("mean", mc.mean[i], mc.std[i]));
    const name = element("span", "name", classes[i]);
    name.title = classes[i];
    item.append(name, said, mean, chart);
    return item;
  });
}

/** What the heading over the bars says. */
export const barsTitle = (classes) =>
  classes.length > MOST_BARS ? `The ${MOST_BARS} likeliest of ${classes.length} classes` : "Class by class";

/** Where an input stands among the familiar ones, and from where on inputs are flagged. */
export function drawStrip({ p_value: p, level }) {
  const strip = element("div", "strip");
  strip.setAttribute("role", "img");
  strip.setAttribute(
    "aria-label",
    `${capital(strangerThan(p))}; flagged from ${percent(1 - level)} on.`,
  );
  const zone = place(element("div", "zone"), 1 - level, level);
  const edge = place(element("div", "edge"), 1 - level);
  strip.append(zone, edge, place(element("div", p <= level ? "here flagged" : "here"), 1 - p));
  const scale = element("div", "scale small");
  scale.setAttribute("aria-hidden", "true");
  scale.append(element("span", "", "familiar"), element("span", "", `flagged from ${percent(1 - level)} on`));
  return [strip, scale];
}

/** The strip in words, with the p-value itself. */
export const describeStrip = ({ p_value: p, level }) =>
  `${capital(strangerThan(p))}: p-value ${pValue(p)}, flagged at or below ${pValue(level)}`;

/** The entropies as parts of the most that there can be. */
export function drawDoubt({ predictive_entropy: total, expected_entropy: own, mutual_information: between }, classes) {
  const most = Math.log(classes.length);
  const nats = (value) => `${value.toFixed(2)} nats`;
  const stack = element("div", "stack");
  stack.setAttribute("role", "img");
  stack.setAttribute("aria-label", `Doubt: ${nats(total)} of at most ${nats(most)}.`);
  stack.append(place(element("div", "own"), 0, own / most), place(element("div", "between"), own / most, between / most));
  const sentence = element("p", "small");
  sentence.append(
    element("b", "", `Doubt: ${nats(total)} of at most ${nats(most)}`),
    " = ",
    element("span", "key own"),
    ` ${nats(own)} in which each member is unsure by itself + `,
    element("span", "key between"),
    ` ${nats(between)} in which the members disagree.`,
  );
  return [stack, sentence];
}
