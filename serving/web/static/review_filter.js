/* The filter: which stored answers are looked at; it stands in the address. */

import { change, given } from "./address.js";
import { $ } from "./dom.js";

const FIRST = { model: "", state: "open", reason: "", kept: "flagged" }; // what each is where the address says nothing

const control = (name) => $(`review-${name}`);

/** The filter as the service takes it. */
export const readFilter = () =>
  Object.fromEntries(Object.keys(FIRST).map((name) => [name, control(name).value]).filter(([, value]) => value));

/** Show what the address says. */
export function showFilter() {
  const names = new Set([...$("model").options].map(({ value }) => value));
  if (given("model")) names.add(given("model")); // its answers may be stored still
  $("review-model").replaceChildren(new Option("any", ""), ...[...names].map((name) => new Option(name, name)));
  for (const [name, first] of Object.entries(FIRST)) {
    control(name).value = given(name) ?? first;
    if (control(name).selectedIndex < 0) control(name).value = first;
  }
}

/** Call `load` with every change. */
export function watchFilter(load) {
  for (const name of Object.keys(FIRST)) {
    control(name).addEventListener("change", () => {
      change({ [name]: control(name).value || (name === "model" ? null : "") });
      if (name === "model" && control(name).value) $("model").value = control(name).value; // in the other views, too
      load();
    });
  }
  $("review-filter").addEventListener("submit", (event) => {
    event.preventDefault();
    load();
  });
}
