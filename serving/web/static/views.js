/* The views: one is shown at a time, and what it needs is loaded when it is first opened. */

import { change, given } from "./address.js";
import { $ } from "./dom.js";
import * as playground from "./playground.js";

const VIEWS = {
  try: async () => playground,
  review: () => import("./review.js"),
  charts: () => import("./live_charts.js"),
  shadow: () => import("./comparison.js"),
};

let left = () => {}; // what ends the view before

const name = () => (given("view") in VIEWS ? given("view") : "try");

/** Show the view that the address names, for the model that is chosen. */
export async function show() {
  const wanted = name();
  left();
  left = () => {};
  for (const link of document.querySelectorAll("[data-view]")) {
    if (link.dataset.view === wanted) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
    $(`view-${link.dataset.view}`).hidden = link.dataset.view !== wanted;
  }
  $("problem").hidden = $("access").hidden = true;
  $("main").hidden = false;
  $("model-field").hidden = wanted === "review"; // which chooses among more
  const view = await VIEWS[wanted]();
  if (wanted !== name()) return; // another was opened meanwhile
  left = view.leave;
  await view.enter($("model").value);
}

/** Watch the links between the views, and the way back. */
export function watchViews(complain) {
  const open = () => show().catch(complain);
  for (const link of document.querySelectorAll("[data-view]")) {
    link.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return; // into another tab
      event.preventDefault();
      change({ view: link.dataset.view === "try" ? null : link.dataset.view }, { step: true });
      open();
    });
  }
  addEventListener("popstate", () => {
    if ([...$("model").options].some(({ value }) => value === given("model"))) $("model").value = given("model");
    open();
  });
}
