/* The service: what the page asks of it, and the key that it may want. */

import { $ } from "./dom.js";

const STORED = "dubio-key";

export const key = () => sessionStorage.getItem(STORED);

/** What the service answered instead: a problem with its title, detail and status. */
export class Refusal extends Error {
  constructor({ title, detail, status }) {
    super(`${title}: ${detail}`);
    this.detail = detail;
    this.status = status;
  }
}

/** Ask the service, with the key of this tab if there is one.
 *
 * A refused key makes the page ask for another. Throws a `Refusal`, or an `Error` where there is no answer at all.
 */
async function ask(path, body) {
  const headers = { "Content-Type": "application/json", ...(key() && { Authorization: `Bearer ${key()}` }) };
  const options = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
  let response, answer;
  try {
    response = await fetch(path, { ...options, headers });
    answer = await response.json();
  } catch (error) {
    throw new Error(`The service does not answer: ${error.message}`);
  }
  if (response.ok) return answer;
  const refusal = new Refusal({ status: response.status, ...answer });
  if (response.status === 401 || response.status === 403) wantKey(refusal);
  throw refusal;
}

export const listModels = async () => (await ask("v1/models")).models;

export const readCard = (name) => ask(`v1/models/${encodeURIComponent(name)}`);

export const predictions = async (name, body) => (await ask(`v1/models/${encodeURIComponent(name)}/predict`, body)).predictions;

/** Show the form for a key, and nothing else; what was wrong with the one that was used, if one was. */
function wantKey(refusal) {
  $("access").hidden = false;
  $("main").hidden = $("problem").hidden = true;
  $("key-problem").hidden = !key();
  $("key-problem").textContent = refusal.message;
  sessionStorage.removeItem(STORED);
  $("key").focus();
}

/** Call `retry` with every key that is given. */
export function watchKey(retry) {
  $("access").addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem(STORED, $("key").value.trim());
    $("key").value = "";
    $("access").hidden = true;
    retry();
  });
}
