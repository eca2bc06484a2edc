/* The request as a program, to be run as it stands. */

import { $ } from "./dom.js";
import { key } from "./service.js";

/** Text as one word of a POSIX shell. */
const shellQuoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

const address = (name) => new URL(`v1/models/${encodeURIComponent(name)}/predict`, document.baseURI.split(/[?#]/)[0]).href;

export function curl(name, body) {
  const secret = key() ? ` \\\n  -H "Authorization: Bearer $KEY"` : "";
  return `curl -s ${shellQuoted(address(name))} \\\n  -H 'Content-Type: application/json'${secret} \\\n  -d ${shellQuoted(JSON.stringify(body))}`;
}

export function python(name, body) {
  const secret = key() ? `, "Authorization": "Bearer " + os.environ["KEY"]` : "";
  // A text in JSON is a text in Python, too.
  return `import json${key() ? "\nimport os" : ""}
import urllib.request

body = ${JSON.stringify(JSON.stringify(body))}
headers = {"Content-Type": "application/json"${secret}}
request = urllib.request.Request(${JSON.stringify(address(name))}, body.encode(), headers)
with urllib.request.urlopen(request) as answer:
    print(json.dumps(json.load(answer), indent=1))
`;
}

/** Show a program and put it on the clipboard, or select it where the browser lets no page do that. */
async function offer(text) {
  $("snippet").hidden = false;
  $("snippet").textContent = text;
  const secret = key() ? " Set KEY to the API key before it runs." : "";
  try {
    await navigator.clipboard.writeText(text);
    $("copied").textContent = `Copied.${secret}`;
  } catch {
    $("snippet").focus();
    getSelection().selectAllChildren($("snippet"));
    $("copied").textContent = `Selected; copy it with Ctrl+C.${secret}`;
  }
}

/** Watch the buttons; `request` gives a model's name and the body that the page would send. */
export function watchSnippets(request) {
  $("copy-curl").addEventListener("click", () => offer(curl(...request())));
  $("copy-python").addEventListener("click", () => offer(python(...request())));
}
