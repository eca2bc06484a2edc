/* A stored input in its natural form, as far as the service keeps it. */

import { element, short } from "./dom.js";

const MOST_VALUES = 200, MOST_WORDS = 60;

const NOTES = {
  thumbnail: "A small picture of it; more is not stored.",
  hash: "Nothing is stored of it but its SHA-256:",
};

const written = (value) => (value === null ? "missing" : typeof value === "number" ? short(value) : String(value));

function picture({ picture: source }, alt) {
  const image = element("img", "stored");
  image.src = source;
  image.alt = alt;
  return image;
}

function table(rows) {
  const made = element("table", "stored");
  made.append(
    ...rows.slice(0, MOST_VALUES).map(([name, value]) => {
      const row = element("tr");
      const head = element("th", "", name);
      head.scope = "row";
      row.append(head, element("td", "", written(value)));
      return row;
    }),
  );
  if (rows.length > MOST_VALUES) made.append(element("caption", "small", `The first ${MOST_VALUES} of ${rows.length} values`));
  return made;
}

/** All of an input. */
export function drawInput(input) {
  const { kind, form, instance, sha256 } = input;
  const parts = form in NOTES ? [element("p", "small", NOTES[form])] : [];
  if (form === "hash") return [...parts, element("code", "hash", sha256)];
  if (input.picture) return [picture(input, "The input"), ...parts];
  if (kind === "text") return [element("blockquote", "stored", instance)];
  if (kind === "table") return [table(Object.entries(instance))];
  return [table(instance.flat(Infinity).map((value, i) => [String(i), value])), ...parts];
}

/** A glance at it, for eyes alone; null where there is nothing to see. */
export function glance(input) {
  if (input.picture) return picture(input, "");
  if (input.instance === null || input.kind === "numbers") return null;
  const text = input.kind === "text" ? input.instance : Object.values(input.instance).map(written).join(" · ");
  return element("span", "excerpt", text.length > MOST_WORDS ? `${text.slice(0, MOST_WORDS)}…` : text);
}
