/* Elements and numbers, as the page shows them. */

export const $ = (id) => document.getElementById(id);

/** An element with a class and a text, which is never markup. */
export function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

/** Terms and what they mean, in a list of definitions. */
export function list(target, entries) {
  target.replaceChildren(...entries.flatMap(([term, text]) => [element("dt", "", term), element("dd", "", text)]));
}

/** A share; 100% and 0% only where it is so. */
export function percent(p) {
  const shown = (100 * p).toFixed(1);
  if (shown === "100.0" && p < 1) return ">99.9%";
  if (shown === "0.0" && p > 0) return "<0.1%";
  return `${shown.replace(/\.0$/, "")}%`;
}

/** Three digits that count. */
export const short = (number) => (number === 0 ? "0" : Number(number.toPrecision(3)).toString());

/** A p-value with two digits that count. */
export const pValue = (p) => Number(p.toPrecision(2)).toString();

/** Where a p-value stands among the familiar inputs. */
export const strangerThan = (p) =>
  p < 1 ? `stranger than ${percent(1 - p)} of familiar inputs` : "less strange than any familiar input";

/** Scroll a list, and nothing around it, so that one of its elements is seen. */
export function reveal(target, item) {
  const [outer, inner] = [target, item].map((each) => each.getBoundingClientRect());
  target.scrollTop += Math.min(0, inner.top - outer.top) + Math.max(0, inner.bottom - outer.bottom);
}

/** The same random numbers in [0, 1) for the same seed. */
export function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
