/* The review: a queue of stored answers, looked through and labelled by keyboard or mouse. */

import { byLetter, byStep, drawClasses, keysOf } from "./class_choice.js";
import { $, reveal } from "./dom.js";
import { Queue } from "./queue.js";
import { save } from "./review_export.js";
import { readFilter, showFilter, watchFilter } from "./review_filter.js";
import { drawLine, showItem, stateOf, summary } from "./review_item.js";
import { readCard } from "./service.js";

const classes = new Map(); // by model; null of one that is not loaded
let queue = null;
let chosenClass = null;
let seen = null; // the id of what can be seen: nothing is said about anything else
let last = Promise.resolve(); // what is being done; keys that come meanwhile wait for it

// --- what is shown -------------------------------------------------------------------------------------------

const tell = (text) => ($("review-status").textContent = text);

function complain(error) {
  if (!$("access").hidden) return;
  $("item").hidden = seen === null;
  $("review-problem").hidden = false;
  $("review-problem").textContent = error.message;
}

/** Do one thing after the other, and say what goes wrong. */
function then(act) {
  last = last.then(() => ($("review-problem").hidden = true)).then(act).catch(complain);
  return last;
}

const current = () => classes.get(queue.chosen.model.name);

async function findClasses({ name }) {
  if (classes.has(name)) return;
  try {
    classes.set(name, (await readCard(name)).classes);
  } catch (error) {
    if (error.status !== 404) throw error;
    classes.set(name, null);
  }
}

/** Show the queue and the review that is looked at; says what is so, if nothing else was. */
async function show(said) {
  const { reviews, at, after } = queue;
  seen = null;
  $("reviewing").hidden = reviews.length === 0;
  if (reviews.length === 0) {
    tell("No stored answer matches. Flagged inputs are stored, and a share of the others.");
    return;
  }
  $("queue").replaceChildren(...reviews.map((review, i) => drawLine(review, i === at, () => then(() => goTo(i)))));
  const line = $("queue").children[at];
  $("queue").setAttribute("aria-activedescendant", line.id);
  reveal($("queue"), line);
  $("review-more").hidden = after === null;
  const review = await queue.detail();
  await findClasses(review.model);
  showItem(review);
  $("item").hidden = false;
  seen = review.id;
  choose(review.label ?? review.mc?.label ?? review.deterministic.label);
  $("other-title").textContent = current() ? "A class that the model does not know" : "The model is not loaded; its class, or another";
  const place = `${at + 1} of ${reviews.length}${after === null ? "" : " and more"}`;
  tell(`${said ? `${said} ` : ""}${place}: ${summary(review)}.`);
}

/** Choose a class, which Enter takes. */
function choose(name) {
  chosenClass = name;
  $("labels").replaceChildren(...drawClasses(current() ?? [], name, (taken) => then(() => label(taken))));
  const chosen = $("labels").querySelector(".chosen");
  if (chosen) reveal($("labels"), chosen);
}

// --- what is done --------------------------------------------------------------------------------------------

async function goTo(place, said) {
  const moved = await queue.go(place);
  await show(moved || said === undefined ? said : `${said} That was the last one;`);
  $("queue").focus({ preventScroll: true });
}

async function say(what) {
  if (seen !== queue.chosen.id) throw new Error("This input cannot be shown, so nothing was said about it; look again.");
  await queue.say(what);
  await goTo(queue.at + 1, `Noted: ${stateOf(queue.chosen)}.`);
}

const label = (name) => say({ label: name });

async function undo() {
  const done = await queue.undo();
  await show(done ? "Taken back." : "There is nothing to take back.");
  $("queue").focus({ preventScroll: true });
}

async function more() {
  await queue.more();
  await show();
  $("queue").focus({ preventScroll: true });
}

function chooseAnother(name) {
  if (!name) return;
  choose(name);
  tell(`${name} is chosen; Enter takes it.`);
}

const KEYS = {
  ArrowDown: () => goTo(queue.at + 1),
  ArrowUp: () => goTo(queue.at - 1),
  Home: () => goTo(0),
  End: () => goTo(queue.reviews.length - 1),
  ArrowRight: () => chooseAnother(current() && byStep(current(), chosenClass, 1)),
  ArrowLeft: () => chooseAnother(current() && byStep(current(), chosenClass, -1)),
  Enter: () => current()?.includes(chosenClass) && label(chosenClass),
  "-": () => say({ state: "not_for_us" }),
  Backspace: undo,
};

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select")) return;
  if (event.target.matches("button") && (event.key === "Enter" || event.key === " ")) return;
  const { key } = event;
  if (!(key in KEYS) && !/^[\p{L}\p{N}\p{P}\p{S}]$/u.test(key)) return;
  event.preventDefault();
  then(() => {
    if (queue === null || queue.chosen === null) return undefined;
    if (key in KEYS) return KEYS[key]();
    if (!current()) return undefined;
    const taken = keysOf(current()).get(key);
    return taken === undefined ? chooseAnother(byLetter(current(), chosenClass, key)) : label(taken);
  });
}

// --- controls ------------------------------------------------------------------------------------------------

async function load() {
  $("reviewing").hidden = true;
  tell("");
  queue = new Queue(readFilter());
  await queue.more();
  await show();
  $("queue").focus({ preventScroll: true });
}

let watching = false;

function watch() {
  watching = true;
  watchFilter(() => then(load));
  $("reviewing").addEventListener("keydown", press);
  $("review-more").addEventListener("click", () => then(more));
  $("not-for-us").addEventListener("click", () => then(KEYS["-"]));
  $("undo").addEventListener("click", () => then(undo));
  $("previous").addEventListener("click", () => then(KEYS.ArrowUp));
  $("next").addEventListener("click", () => then(KEYS.ArrowDown));
  $("other-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const name = $("other").value.trim();
    $("other").value = "";
    then(() => say({ label: name, new_label: true }));
  });
  for (const each of document.querySelectorAll("[data-export]")) {
    each.addEventListener("click", () => then(async () => tell(await save(readFilter(), each.dataset.export))));
  }
}

/** Open the view: what the address says is shown. */
export async function enter() {
  if (!watching) watch();
  showFilter();
  await then(load);
}

export function leave() {}
