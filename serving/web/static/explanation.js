/* Why an input was flagged, or was not. */

import { $, element, pValue, short } from "./dom.js";

const MOST_NAMED = 4;

/** The columns that set a row apart, and the p-value of each score alone. */
function describeExplanation({ checkpoint, scores, squared_distance: distance, columns }) {
  const lines = [];
  if (columns) {
    const named = columns.filter(({ contribution }) => contribution > 0).slice(0, MOST_NAMED);
    const parts = named.map(({ name, contribution }) => `${name} (${short(contribution)})`).join(", ");
    lines.push(`Most of its squared distance of ${short(distance)} from the training rows: ${parts || "no column"}.`);
  }
  if (scores) {
    const parts = Object.entries(scores).map(([name, p]) => `${name.replaceAll("_", " ")} ${pValue(p)}`).join(", ");
    lines.push(`p-value of each score alone${checkpoint ? `, of checkpoint ${checkpoint}` : ""}: ${parts}.`);
  }
  return lines.join(" ");
}

/** A training row: its picture or text where the model keeps it, and its number. */
function neighbour({ row, distance, text, thumbnail }) {
  const item = element("li");
  if (thumbnail) {
    const picture = element("img");
    picture.src = thumbnail;
    picture.alt = `Training row ${row}`;
    item.append(picture);
  }
  item.append(element("span", "", `${text ? `“${text}” — ` : ""}row ${row}, distance ${short(distance)}`));
  return item;
}

export function showExplanation(ood) {
  $("explanation").textContent = describeExplanation(ood);
  $("nearest").hidden = !ood.neighbours;
  $("neighbours").replaceChildren(...(ood.neighbours || []).map(neighbour));
}
