/* Strangers: what is made of a familiar input so that it is none any more, in ways that can be named. */

import { random } from "./dom.js";

const SEED = 11;

/** Ways to make strangers, the likeliest to be one first; each takes the value and the input. */
const WAYS = {
  image: { "the same, its pixels shuffled": shuffle, "the same, inverted": invert, noise: noise },
  numbers: { "the same, each number mirrored in its range": invert, noise: noise },
  table: { "the same row, each value from the other end of its range": mirror },
  text: { "the same letters, backwards": backwards, "the same words, shuffled": shuffleWords },
};

function permuted(items) {
  const draw = random(SEED);
  return items.map((item) => [draw(), item]).sort((a, b) => a[0] - b[0]).map(([, item]) => item);
}

function shuffle(flat, { shape: [channels, height, width] }) {
  const area = height * width;
  const order = permuted([...Array(area).keys()]);
  return Array.from({ length: channels * area }, (_, i) => flat[i - (i % area) + order[i % area]]);
}

export function invert(flat, { low, high }) {
  return flat.map((value) => low + high - value);
}

function noise(flat, { low, high }) {
  const draw = random(SEED);
  return flat.map(() => low + draw() * (high - low));
}

function mirror(row, { columns }) {
  const far = columns.map(({ name, kind, low, high, categories }) => {
    if (kind === "numeric") return [name, (row[name] ?? low) > (low + high) / 2 ? low : high];
    return [name, categories.find((category) => category !== String(row[name])) ?? row[name]];
  });
  return Object.fromEntries(far);
}

function backwards(text) {
  return [...text].reverse().join("");
}

function shuffleWords(text) {
  return permuted(text.split(/\s+/)).join(" ");
}

/** Strangers made of a familiar input, each with what was done to it. */
export function makeStrangers(value, input) {
  return Object.entries(WAYS[input.kind]).map(([what, make]) => ({ what, value: make(value, input) }));
}
