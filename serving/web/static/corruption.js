/* The corruption: an input made worse bit by bit, the same way at every strength. */

import { $, random, strangerThan } from "./dom.js";
import { corrupt, current, tidy, watch } from "./instance.js";

const SEED = 7;
const CATEGORY_SHARE = 0.5; // of the names that change at full noise

const clip = (value, { low, high }) => Math.min(high, Math.max(low, value));

/** How inputs of each kind can be corrupted; each takes the clean value, a strength from 0 to 1, and the input. */
const WAYS = {
  image: { noise: mixNoise, rotation: rotate, brightness: brighten },
  numbers: { noise: mixNoise },
  table: { noise: jitter, "missing values": omit },
  text: { "dropped words": dropWords },
};

/** A share of each number is uniform noise. */
function mixNoise(flat, strength, input) {
  const draw = random(SEED);
  return flat.map((value) => tidy((1 - strength) * value + strength * (input.low + draw() * (input.high - input.low)), input));
}

function brighten(flat, strength, input) {
  return flat.map((value) => tidy(clip(value + strength * (input.high - input.low), input), input));
}

/** Turned by up to half a circle about the middle, with what was outside at the smallest value. */
function rotate(flat, strength, input) {
  const [channels, height, width] = input.shape;
  const [sin, cos] = [Math.sin(strength * Math.PI), Math.cos(strength * Math.PI)];
  const at = (channel, row, column) =>
    row < 0 || column < 0 || row >= height || column >= width ? input.low : flat[(channel * height + row) * width + column];
  const turned = [];
  for (let channel = 0; channel < channels; channel++) {
    for (let row = 0; row < height; row++) {
      for (let column = 0; column < width; column++) {
        const [y, x] = [row - (height - 1) / 2, column - (width - 1) / 2];
        const [fromY, fromX] = [cos * y - sin * x + (height - 1) / 2, sin * y + cos * x + (width - 1) / 2];
        const [top, left] = [Math.floor(fromY), Math.floor(fromX)];
        const [down, right] = [fromY - top, fromX - left];
        const upper = (1 - right) * at(channel, top, left) + right * at(channel, top, left + 1);
        const lower = (1 - right) * at(channel, top + 1, left) + right * at(channel, top + 1, left + 1);
        turned.push(tidy((1 - down) * upper + down * lower, input));
      }
    }
  }
  return turned;
}

/** Numbers move by up to their range, and some names become others. */
function jitter(row, strength, { columns }) {
  const draw = random(SEED);
  const noisy = { ...row };
  for (const { name, kind, low, high, categories } of columns) {
    const [drift, chance, which] = [2 * draw() - 1, draw(), draw()];
    if (typeof row[name] === "number" && kind === "numeric") {
      const moved = row[name] + strength * drift * (high - low);
      noisy[name] = Number.isInteger(row[name]) && high - low >= 8 ? Math.round(moved) : Number(moved.toPrecision(6));
    } else if (categories && chance < strength * CATEGORY_SHARE) {
      noisy[name] = categories[Math.floor(which * categories.length)];
    }
  }
  return noisy;
}

/** So many of the columns are missing that may be. */
function omit(row, strength, { columns }) {
  const draw = random(SEED);
  const holes = columns.filter(({ missing }) => missing).map(({ name }) => [draw(), name]);
  const gone = holes.sort().slice(0, Math.round(strength * holes.length));
  return { ...row, ...Object.fromEntries(gone.map(([, name]) => [name, null])) };
}

/** So many of the words are gone, but for one. */
function dropWords(text, strength) {
  const draw = random(SEED);
  const words = text.split(/\s+/).filter(Boolean);
  const order = words.map((_, i) => [draw(), i]).sort((a, b) => a[0] - b[0]).map(([, i]) => i);
  const gone = new Set(order.slice(0, Math.min(words.length - 1, Math.round(strength * words.length))));
  return words.filter((_, i) => !gone.has(i)).join(" ");
}

/** The ways that a model's inputs can be corrupted. */
export function waysOf(input) {
  const ways = { ...WAYS[input.kind] };
  if (input.kind === "table" && !input.columns.some(({ missing }) => missing)) delete ways["missing values"];
  return ways;
}

/** Make ready for another model. */
export function setUpCorruption(input) {
  const names = Object.keys(waysOf(input));
  $("corruption").hidden = names.length === 0;
  $("corruption-kind").replaceChildren(...names.map((name) => new Option(name, name)));
}

/** What the answer says to the corrupted input, beside the slider. */
export function showEffect(answer) {
  const { ood, uncertainty } = answer;
  const strange = ood.p_value === null ? "" : `${strangerThan(ood.p_value)}${ood.flagged ? ", flagged" : ""}; `;
  const { predictive_entropy: total, mutual_information: between } = uncertainty;
  $("corruption-effect").textContent = `${$("strength").value}%: ${strange}doubt ${total.toFixed(2)} nats, of which disagreement ${between.toFixed(2)}.`;
}

/** Watch the slider; every step is predicted. */
export function watchCorruption(predict) {
  const apply = () => {
    const { input } = current.card;
    const [way, strength] = [waysOf(input)[$("corruption-kind").value], $("strength").value / 100];
    corrupt(strength === 0 ? current.clean : way(current.clean, strength, input));
    predict();
  };
  $("strength").addEventListener("input", apply);
  $("corruption-kind").addEventListener("change", apply);
  // Another input begins uncorrupted.
  watch((source) => {
    if (source !== "corruption") $("strength").value = 0;
  });
}
