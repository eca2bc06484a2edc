/* The first view: one input, and what the model answers to it. */

import { showAbout } from "./about.js";
import { hideAnswer, showAnswer } from "./answer.js";
import { setUpCorruption, showEffect, watchCorruption } from "./corruption.js";
import { $ } from "./dom.js";
import { setUpDrawing, watchDrawing } from "./drawing.js";
import { exampleOf, mark, showFirstSight } from "./first_sight.js";
import { blank, current, edit, fromWire, isDrawable, isWritten, toWire, watch, write } from "./instance.js";
import { hasForm, markField, setUpForm, watchForm } from "./row_form.js";
import { predictions, readCard, Refusal } from "./service.js";
import { watchSnippets } from "./snippet.js";
import { invert } from "./strangers.js";

const FEWER = [2, 4, 8, 16, 32, 64, 128]; // members that may be asked

const state = { predicting: false, again: false, draft: null };

// --- problems ------------------------------------------------------------------------------------------------

export function showProblem(text) {
  $("problem").hidden = false;
  $("problem").textContent = text;
}

function clearProblem() {
  $("problem").hidden = $("input-problem").hidden = true;
  for (const id of ["values", "text"]) $(id).removeAttribute("aria-invalid");
}

/** Say what is wrong with the instance, at the field that holds it. */
function refuse(text) {
  hideAnswer();
  const { input } = current.card;
  if (hasForm(input) && state.draft === null && markField(text)) return;
  $("input-problem").hidden = false;
  $("input-problem").textContent = text;
  if (input.kind === "text") $("text").setAttribute("aria-invalid", "true");
  else if (isWritten(input)) {
    $("values").setAttribute("aria-invalid", "true");
    $("numbers").open = true;
  }
}

// --- predicting ----------------------------------------------------------------------------------------------

function requestBody(value) {
  const samples = $("samples").value;
  const asked = samples === "" ? {} : { samples: samples === "auto" ? "auto" : Number(samples) };
  return { instances: [toWire(value, current.card.input)], parameters: { explain: true, ...asked } };
}

/** Ask about what there is now; while a request is on its way the next one waits, and only the last one counts. */
async function predict() {
  if (current.card === null) return;
  if (state.predicting) {
    state.again = true;
    return;
  }
  state.predicting = true;
  do {
    state.again = false;
    await predictOnce();
  } while (state.again);
  state.predicting = false;
}

async function predictOnce() {
  const { card } = current;
  clearProblem();
  if (state.draft !== null && !readDraft()) return;
  $("result").setAttribute("aria-busy", "true");
  try {
    const [answer] = await predictions(card.name, requestBody(current.value));
    if (card === current.card) show(answer);
  } catch (error) {
    if (card !== current.card) return;
    if (error instanceof Refusal && error.status === 422) refuse(error.detail);
    else showProblem(error.message);
  } finally {
    $("result").removeAttribute("aria-busy");
  }
}

function show(answer) {
  showAnswer(answer, current.card);
  showEffect(answer);
}

/** Take the JSON that was typed; says what is wrong with it otherwise. */
function readDraft() {
  let parsed;
  try {
    parsed = JSON.parse(state.draft);
    edit(fromWire(parsed, current.card.input), "values");
  } catch (error) {
    refuse(parsed === undefined ? `This is not JSON: ${error.message}` : `${error.message}.`);
    return false;
  }
  state.draft = null;
  return true;
}

// --- model ---------------------------------------------------------------------------------------------------

async function choose(name) {
  clearProblem();
  hideAnswer();
  const card = await readCard(name);
  const { input, committee, auto } = card;
  current.card = card;
  state.draft = null;
  setUpDrawing(input);
  setUpForm(input);
  setUpCorruption(input);
  $("text-field").hidden = input.kind !== "text";
  $("numbers").hidden = !isWritten(input);
  $("numbers").open = isWritten(input) && !isDrawable(input) && !hasForm(input);
  $("values-label").textContent =
    input.kind === "table" ? "A value for every column, null where it is missing" : "Raw values, as in the training data";
  $("invert").hidden = input.kind !== "image";
  $("example").hidden = card.example === null;
  $("samples").replaceChildren(
    new Option(`all ${committee.num_samples}`, ""),
    ...(auto ? [new Option("auto: as many as it takes", "auto")] : []),
    ...FEWER.filter((count) => count < committee.num_samples).map((count) => new Option(`${count}, without a flag`, count)),
  );
  showAbout(card);
  edit(exampleOf(card) ?? blank(input), "model");
  const answer = await showFirstSight(card).catch(() => null); // what is wrong is said when the instance alone is asked
  if (card !== current.card) return;
  if (answer) show(answer);
  else if (card.example !== null) await predict();
}

// --- controls ------------------------------------------------------------------------------------------------

function put(value) {
  edit(value, "button");
  predict();
}

function watchControls() {
  $("predict").addEventListener("click", predict);
  $("samples").addEventListener("change", predict);
  $("example").addEventListener("click", () => put(exampleOf(current.card)));
  $("clear").addEventListener("click", () => {
    if (current.card.input.kind !== "text") return put(blank(current.card.input));
    edit("", "button");
    hideAnswer();
    $("text").focus();
  });
  $("invert").addEventListener("click", () => put(invert(current.value, current.card.input)));
  $("text").addEventListener("input", () => edit($("text").value, "text"));
  $("values").addEventListener("input", () => {
    state.draft = $("values").value;
    try {
      edit(fromWire(JSON.parse(state.draft), current.card.input), "values");
    } catch {
      // half-typed; predicting it says what is wrong
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || !current.card || $("main").hidden || $("view-try").hidden) return;
    event.preventDefault();
    predict();
  });
  watch((source) => {
    const { card, value } = current;
    if (source !== "values") state.draft = null;
    if (source !== "text") $("text").value = card.input.kind === "text" ? value : "";
    if (source !== "values" && isWritten(card.input)) $("values").value = write(value, card.input);
    if (source !== "tile" && source !== "model") mark(null);
  });
}

/** Show a model, unless it is there already. */
export async function enter(name) {
  if (current.card?.name !== name) await choose(name);
}

export function leave() {}

/** Watch everything on this view. */
export function watchPlayground() {
  watchControls();
  watchDrawing(predict, refuse);
  watchForm(predict);
  watchCorruption(predict);
  watchSnippets(() => [current.card.name, requestBody(current.value)]);
}
