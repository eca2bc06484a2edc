/* The first sight: a familiar input and a typical stranger side by side, each with its verdict. */

import { $, element } from "./dom.js";
import { current, edit, fromWire, isDrawable, toWire } from "./instance.js";
import { drawPixels } from "./pixels.js";
import { predictions } from "./service.js";
import { makeStrangers } from "./strangers.js";
import { inShort, sign } from "./verdict.js";

const MOST_WORDS = 80; // characters of a text or a row in a tile

const SOURCES = {
  held_out: "A row that was held out of the training",
  typical: "The middle of a class: no single row",
  made_up: "Made up from the ranges of training: it may be strange",
};

/** The example of a model as it is kept; null if it has none. */
export const exampleOf = ({ example, input }) => (example === null ? null : fromWire(example, input));

/** Ask about the example and some strangers in one request, and show the first that is flagged; gives the answer to
 * the example, or null if there is none. */
export async function showFirstSight(card) {
  $("sight").hidden = true;
  const familiar = exampleOf(card);
  if (familiar === null) return null;
  const strangers = makeStrangers(familiar, card.input);
  const instances = [familiar, ...strangers.map(({ value }) => value)].map((value) => toWire(value, card.input));
  const [answer, ...others] = await predictions(card.name, { instances, parameters: { explain: true } });
  if (card !== current.card) return null; // another model was chosen meanwhile
  const found = Math.max(0, others.findIndex(({ ood }) => ood.flagged));
  const { what, value } = strangers[found];
  const familiarTitle = answer.ood.flagged ? "The model's example" : "Something familiar";
  $("tiles").replaceChildren(
    tile(card, familiarTitle, SOURCES[card.example_source], familiar, answer),
    tile(card, others[found].ood.flagged ? "A stranger" : "Something stranger, but not flagged", `Made of it: ${what}`, value, others[found]),
  );
  mark($("tiles").firstElementChild);
  $("sight").hidden = false;
  return answer;
}

function tile(card, title, note, value, answer) {
  const { level, text } = inShort(answer, card.classes);
  const made = element("button", "tile");
  made.type = "button";
  const said = element("span", "said");
  const verdict = element("span", `chip ${level}`);
  verdict.append(sign(level), text);
  said.append(element("b", "", title), element("span", "small", note), element("span", "", `Committee: ${answer.mc.label}; deterministic: ${answer.deterministic.label}`), verdict);
  made.append(look(card.input, value), said);
  made.addEventListener("click", () => {
    edit(value, "tile");
    mark(made);
    $("predict").click();
  });
  return made;
}

function look(input, value) {
  if (isDrawable(input)) {
    const canvas = element("canvas", "thumbnail");
    canvas.setAttribute("aria-hidden", "true");
    drawPixels(canvas, value, input);
    return canvas;
  }
  const text = input.kind === "text" ? value : Object.values(value).map((part) => part ?? "missing").join(" · ");
  return element("span", "excerpt", text.length > MOST_WORDS ? `${text.slice(0, MOST_WORDS)}…` : text);
}

/** Which of the tiles is the one that was chosen. */
export function mark(chosen) {
  for (const each of $("tiles").children) each.setAttribute("aria-pressed", String(each === chosen));
}
