/* The service: what the page asks of it, and the keys that it may want. */

import { $ } from "./dom.js";

const stored = (scope) => `dubio-key-${scope}`;

/** The key of this tab for a scope: its own, else the one that predicts, which may be good for more. */
export const key = (scope = "infer") => sessionStorage.getItem(stored(scope)) ?? sessionStorage.getItem(stored("infer"));

let wanted = "infer"; // the scope of the key that is asked for

/** What the service answered instead: a problem with its title, detail and status. */
export class Refusal extends Error {
  constructor({ title, detail, status }) {
    super(`${title}: ${detail}`);
    this.title = title;
    this.detail = detail;
    this.status = status;
  }
}

/** Ask the service, with the key of this tab if there is one.
 *
 * A refused key makes the page ask for another. Throws a `Refusal`, or an `Error` where there is no answer at all.
 */
async function ask(path, { scope = "infer", method = "GET", body, read = (response) => response.json() } = {}) {
  const headers = { "Content-Type": "application/json", ...(key(scope) && { Authorization: `Bearer ${key(scope)}` }) };
  let response, answer;
  try {
    response = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
    answer = await (response.ok ? read(response) : response.json());
  } catch (error) {
    throw new Error(`The service does not answer: ${error.message}`);
  }
  if (response.ok) return answer;
  const refusal = new Refusal({ status: response.status, ...answer });
  // Without any key, 403 is about something that no key opens.
  if (response.status === 401 || (response.status === 403 && key(scope))) wantKey(refusal, scope);
  throw refusal;
}

const model = (name, what = "") => `v1/models/${encodeURIComponent(name)}${what}`;

export const listModels = async () => (await ask("v1/models")).models;

export const readCard = (name) => ask(model(name));

export const predictions = async (name, body) => (await ask(model(name, "/predict"), { method: "POST", body })).predictions;

export const readActivity = (name) => ask(model(name, "/activity"));

export const readDrift = (name) => ask(model(name, "/drift"));

export const readComparison = (name) => ask(model(name, "/comparison"));

export const promote = (name, force) => ask(model(name, "/promote"), { scope: "admin", method: "POST", body: { force } });

export const listReviews = (query) => ask(`v1/reviews?${new URLSearchParams(query)}`, { scope: "review" });

export const readReview = (id) => ask(`v1/reviews/${id}`, { scope: "review" });

export const changeReview = (id, body) => ask(`v1/reviews/${id}`, { scope: "review", method: "PATCH", body });

/** A file of labelled rows, and how many there are in it and beside it. */
export const exportReviews = (query) =>
  ask(`v1/reviews/export?${new URLSearchParams(query)}`, {
    scope: "review",
    read: async (response) => ({
      file: await response.blob(),
      rows: Number(response.headers.get("Dubio-Rows")),
      withoutInput: Number(response.headers.get("Dubio-Rows-Without-Input")),
    }),
  });

/** Show the form for a key instead of the view; what was wrong with the one that was used, if one was given for this. */
function wantKey(refusal, scope) {
  wanted = scope;
  $("key-scope").textContent = scope;
  $("access").hidden = false;
  $("main").hidden = $("problem").hidden = true;
  $("key-problem").hidden = sessionStorage.getItem(stored(scope)) === null;
  $("key-problem").textContent = refusal.message;
  sessionStorage.removeItem(stored(scope));
  $("key").focus();
}

/** Call `retry` with every key that is given. */
export function watchKey(retry) {
  $("access").addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem(stored(wanted), $("key").value.trim());
    $("key").value = "";
    $("access").hidden = true;
    retry();
  });
}
