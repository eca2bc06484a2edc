/* The instance: one input as it is sent, who shows it, and how it is written.
 *
 * Images and rows of numbers are kept as flat arrays, rows of a table as objects, texts as strings.
 */

const MOST_WRITTEN = 1024; // numbers that a person can look through

const watchers = [];

/** `clean` is what somebody gave, `value` the same or what a corruption made of it. */
export const current = { card: null, clean: null, value: null };

/** Call `render(source)` whenever the instance changes; `source` is the view that changed it. */
export const watch = (render) => watchers.push(render);

/** Take what somebody gave. */
export function edit(value, source) {
  current.clean = current.value = value;
  watchers.forEach((render) => render(source));
}

/** Show what a corruption made of it. */
export function corrupt(value) {
  current.value = value;
  watchers.forEach((render) => render("corruption"));
}

export const size = (shape) => shape.reduce((product, n) => product * n, 1);

/** A number as precise as is worth reading: whole for pixels, where their range allows it. */
export function tidy(value, { kind, low, high }) {
  if (kind !== "image") return Number(value.toPrecision(6));
  return high - low >= 8 ? Math.round(value) : Math.round(value * 1000) / 1000;
}

/** Whether a model takes what can be drawn. */
export const isDrawable = (input) => input.kind === "image" && [1, 3].includes(input.shape[0]);

/** Whether instances are shown as JSON, too; large pictures are not. */
export const isWritten = (input) => input.kind !== "text" && (!isDrawable(input) || size(input.shape) <= MOST_WRITTEN);

/** The instance as the service takes it. */
export function toWire(value, { kind, shape }) {
  if (kind === "table" || kind === "text") return value;
  return nested(value, kind === "image" && shape[0] === 1 ? shape.slice(1) : shape);
}

/** The instance as it is kept; throws where it is not of the model's shape. */
export function fromWire(instance, { kind, shape }) {
  if (kind === "table" || kind === "text") return instance;
  const flat = Array.isArray(instance) ? instance.flat(Infinity) : [];
  if (flat.length !== size(shape) || !flat.every(Number.isFinite)) {
    throw new Error(`Expected ${size(shape)} numbers (${shape.join(" × ")}), but there are ${flat.length}`);
  }
  return flat;
}

/** As JSON: one line a row of pixels, for a matrix should look like one, and one a column of a table. */
export function write(value, input) {
  if (input.kind === "table") return JSON.stringify(value, null, 1);
  return JSON.stringify(toWire(value, input)).replaceAll("],[", "],\n [");
}

/** Nothing at all: no ink, no text; what is missing where it may, else the middle. */
export function blank({ kind, shape, low, columns }) {
  if (kind === "text") return "";
  if (kind !== "table") return new Array(size(shape)).fill(low);
  return Object.fromEntries(columns.map(({ name, fill, categories }) => [name, categories ? categories[0] : fill]));
}

function nested(flat, shape) {
  if (shape.length < 2) return flat;
  const step = flat.length / shape[0];
  return Array.from({ length: shape[0] }, (_, i) => nested(flat.slice(i * step, (i + 1) * step), shape.slice(1)));
}
