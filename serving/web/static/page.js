/* The page: which models there are, and which of them the views show. */

import { change, given } from "./address.js";
import { $, element } from "./dom.js";
import { showProblem, watchPlayground } from "./playground.js";
import { listModels, watchKey } from "./service.js";
import { show, watchViews } from "./views.js";

/** What cannot be shown is said, unless a key is asked for first. */
function complain(error) {
  if ($("access").hidden) showProblem(error.message);
}

/** Choose a model, and keep it in the address. */
function choose() {
  change({ model: $("model").value });
  show().catch(complain);
}

async function start() {
  try {
    const models = await listModels();
    if (models.length === 0) throw new Error("no model is loaded");
    const names = models.map(({ name }) => name);
    $("model").replaceChildren(...names.map((name) => element("option", "", name)));
    $("bar").hidden = false;
    const wanted = given("model");
    const known = names.includes(wanted);
    $("model").value = known ? wanted : names[0];
    await show();
    if (wanted !== null && !known) showProblem(`There is no model ${wanted} here; this is ${names[0]}.`);
  } catch (error) {
    complain(new Error(`The service is not ready: ${error.message}`));
  }
}

$("model").addEventListener("change", choose);
watchPlayground();
watchViews(complain);
watchKey(start);
start();
