/* The form: a row of a table, column by column, with what the training rows had. */

import { $, element, short } from "./dom.js";
import { current, edit, watch } from "./instance.js";

const MOST_COLUMNS = 200; // of more, the JSON is the form
const MOST_SHOWN = 4; // categories in a hint
const MISSING = " missing"; // no category begins with a blank

const controls = new Map(); // by column

export const hasForm = (input) => input.kind === "table" && input.columns.length <= MOST_COLUMNS;

/** Make the fields of another model. */
export function setUpForm(input) {
  controls.clear();
  $("row-form").hidden = !hasForm(input);
  if (!hasForm(input)) return $("row-form").replaceChildren();
  const enter = element("input"); // without it, Enter submits no form of several fields
  enter.type = "submit";
  enter.hidden = true;
  $("row-form").setAttribute("aria-label", `A row of ${input.columns.length} columns`);
  $("row-form").replaceChildren(...input.columns.map(makeField), enter);
}

function makeField(column, index) {
  const field = element("div", "column");
  const label = element("label", "", column.name);
  const control = column.kind === "numeric" ? numberField() : choice(column);
  const hint = element("span", "small", describe(column));
  const error = element("p", "error");
  control.id = label.htmlFor = `column-${index}`;
  hint.id = `${control.id}-hint`;
  error.id = `${control.id}-error`;
  error.hidden = true;
  error.setAttribute("role", "alert");
  control.setAttribute("aria-describedby", `${hint.id} ${error.id}`);
  control.addEventListener("input", read);
  field.append(label, control);
  let hole = null;
  if (column.kind === "numeric" && column.missing) {
    hole = element("input");
    hole.type = "checkbox";
    const holeLabel = element("label", "small hole");
    holeLabel.append(hole, " missing", element("span", "unseen", `: ${column.name}`));
    hole.addEventListener("change", () => {
      control.disabled = hole.checked;
      read();
    });
    field.append(holeLabel);
  }
  field.append(hint, error);
  controls.set(column.name, { column, control, hole, error, field });
  return field;
}

function numberField() {
  const control = element("input");
  control.type = "text"; // a number field would swallow what is no number, and nobody would be told
  control.inputMode = "decimal";
  control.autocomplete = "off";
  return control;
}

function choice({ categories, missing }) {
  const control = element("select");
  control.append(...categories.map((name) => new Option(name, name)));
  if (missing) control.append(new Option("missing", MISSING));
  return control;
}

function describe({ kind, low, high, categories, missing }) {
  const known =
    kind === "numeric"
      ? `${short(low)} to ${short(high)}`
      : categories.slice(0, MOST_SHOWN).join(", ") + (categories.length > MOST_SHOWN ? `, and ${categories.length - MOST_SHOWN} more` : "");
  return known + (missing ? ", or missing" : "");
}

/** The value of a field: what is no number goes to the service as it is, which says what is wrong with it. */
function valueOf({ column, control, hole }) {
  if (column.kind !== "numeric") return control.value === MISSING ? null : control.value;
  const text = control.value.trim();
  if (hole?.checked || text === "") return null;
  return Number.isFinite(Number(text)) ? Number(text) : text;
}

function read() {
  clearFields();
  markRanges();
  edit({ ...current.value, ...Object.fromEntries([...controls].map(([name, each]) => [name, valueOf(each)])) }, "form");
}

function markRanges() {
  for (const { column, control, field } of controls.values()) {
    const value = Number(control.value);
    field.classList.toggle("outside", column.kind === "numeric" && control.value.trim() !== "" && !(value >= column.low && value <= column.high));
  }
}

function show(source) {
  if (source === "form" || !hasForm(current.card.input)) return;
  for (const [name, { column, control, hole }] of controls) {
    const value = current.value?.[name] ?? null;
    if (column.kind === "numeric") {
      control.value = value === null ? "" : value;
      if (hole) control.disabled = hole.checked = value === null;
      continue;
    }
    const wanted = value === null ? MISSING : String(value);
    // A category that no training row had can come from the JSON.
    if (![...control.options].some((option) => option.value === wanted)) control.append(new Option(wanted, wanted));
    control.value = wanted;
  }
  clearFields();
  markRanges();
}

function clearFields() {
  for (const { control, error } of controls.values()) {
    control.removeAttribute("aria-invalid");
    error.hidden = true;
  }
}

/** Outline the field that a refusal names, and say there what is wrong; whether there is one. */
export function markField(detail) {
  const named = [...controls.entries()].find(([name]) => namesColumn(detail, name.slice(0, 100)));
  if (!named) return false;
  const { control, error } = named[1];
  control.setAttribute("aria-invalid", "true");
  error.textContent = detail.replace(/instances\[0\]\[(['"])(.*?)\1\]/, "$2");
  error.hidden = false;
  control.scrollIntoView({ block: "nearest" });
  return true;
}

/** Whether a message names a column, quoted as the service quotes. */
function namesColumn(detail, name) {
  const escaped = name.replaceAll("\\", "\\\\");
  return [`'${escaped}'`, `"${escaped}"`, `'${escaped.replaceAll("'", "\\'")}'`].some((quoted) => detail.includes(`instances[0][${quoted}]`));
}

/** Watch the form; Enter predicts, as in any form. */
export function watchForm(predict) {
  $("row-form").addEventListener("submit", (event) => {
    event.preventDefault();
    predict();
  });
  $("row-form").addEventListener("change", predict);
  watch(show);
}
