"use strict";

const MOST_BARS = 12;
const MOST_DRAWN = 32; // pixels along a side; more cannot be drawn by hand

const VERDICTS = {
  unfamiliar: "Flagged: this does not resemble the training data.",
  uncertain: "Flagged: the committee's members disagree about this more than about training data.",
  out_of_range: "Flagged: this holds values that never occurred in the training data.",
  not_calibrated: "No verdict: this model was not calibrated, so it promises no false-alarm rate.",
  calibration_too_small: "No verdict: too few inputs were held out to calibrate several checkpoints at once.",
  not_calibrated_for_these_samples: "No verdict: flags are calibrated for the whole committee only.",
};

// What the box holds: its heading, and how an instance is written there.
const FORMS = {
  text: ["The text that is sent", "One instance: a text"],
  table: ["The row that is sent", "One instance, as JSON: a value for every column, null where it is missing"],
  numbers: ["The numbers that are sent", "One instance, as JSON: raw values, as in the training data"],
};

const $ = (id) => document.getElementById(id);
const state = { card: null, values: [], cursor: 0, asked: 0 };

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

const percent = (p) => `${(100 * p).toFixed(1)} %`;
const short = (number) => (number === 0 ? "0" : Number(number.toPrecision(3)).toString());

// --- service -------------------------------------------------------------------------------------------------

/** Ask the service, with the key of this tab if there is one; a refused key makes the page ask for another. */
async function ask(path, options = {}) {
  const key = sessionStorage.getItem("dubio-key");
  const headers = { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) };
  const response = await fetch(path, { ...options, headers });
  if (response.status === 401 || response.status === 403) $("access").hidden = false;
  return response;
}

function watchKey() {
  $("access").addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem("dubio-key", $("key").value.trim());
    $("key").value = "";
    $("access").hidden = true;
    listModels();
  });
}

// --- input ---------------------------------------------------------------------------------------------------

function drawable(input) {
  return input.kind === "image" && input.shape[0] === 1 && Math.max(...input.shape) <= MOST_DRAWN;
}

/** Whether an instance is a text or a row of named columns, rather than numbers. */
function isTextOrRow(input) {
  return input.kind === "text" || input.kind === "table";
}

/** The instance in the box. */
function read() {
  const text = $("values").value;
  return state.card.input.kind === "text" ? text : JSON.parse(text);
}

function nested(flat, shape) {
  if (shape.length < 2) return flat;
  const step = flat.length / shape[0];
  return Array.from({ length: shape[0] }, (_, i) => nested(flat.slice(i * step, (i + 1) * step), shape.slice(1)));
}

function size(shape) {
  return shape.reduce((product, n) => product * n, 1);
}

function tidy(value) {
  const { low, high } = state.card.input;
  return high - low >= 8 ? Math.round(value) : Math.round(value * 1000) / 1000;
}

/** Show `flat` values in the grid and in the text. */
function setValues(flat) {
  const { input } = state.card;
  state.values = flat;
  const shape = drawable(input) ? input.shape.slice(1) : input.shape;
  // One line a row of pixels: a matrix should look like one.
  $("values").value = JSON.stringify(nested(flat, shape)).replaceAll("],[", "],\n [");
  paint();
}

function paint() {
  const { input } = state.card;
  if (!drawable(input)) return;
  const [, height, width] = input.shape;
  const canvas = $("grid");
  canvas.width = width;
  canvas.height = height;
  canvas.style.aspectRatio = `${width} / ${height}`;
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const range = input.high - input.low || 1;
  state.values.forEach((value, i) => {
    const grey = Math.round((255 * (value - input.low)) / range);
    image.data.set([grey, grey, grey, 255], 4 * i);
  });
  if (canvas.matches(":focus-visible")) image.data.set([230, 60, 60, 255], 4 * state.cursor);
  context.putImageData(image, 0, 0);
}

/** Lighten the pixels near (x, y), in pixels, like a soft pen. */
function stroke(x, y) {
  const { input } = state.card;
  const [, height, width] = input.shape;
  const radius = Math.max(0.9, width / 16);
  const flat = state.values.slice();
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      const distance = Math.hypot(column + 0.5 - x, row + 0.5 - y);
      const ink = Math.min(1, Math.max(0, 1.25 - distance / radius));
      const i = row * width + column;
      flat[i] = Math.max(flat[i], tidy(input.low + ink * (input.high - input.low)));
    }
  }
  setValues(flat);
}

function watchDrawing() {
  const canvas = $("grid");
  let last = null;
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * canvas.width, ((event.clientY - box.top) / box.height) * canvas.height];
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    last = at(event);
    stroke(...last);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!last) return;
    const next = at(event);
    const steps = Math.max(1, Math.ceil(2 * Math.hypot(next[0] - last[0], next[1] - last[1])));
    for (let i = 1; i <= steps; i++) {
      stroke(last[0] + ((next[0] - last[0]) * i) / steps, last[1] + ((next[1] - last[1]) * i) / steps);
    }
    last = next;
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, () => {
      if (last) predict();
      last = null;
    });
  }
  canvas.addEventListener("keydown", (event) => {
    const [, height, width] = state.card.input.shape;
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -width, ArrowDown: width };
    if (event.key in steps) {
      const next = state.cursor + steps[event.key];
      if (next >= 0 && next < width * height) state.cursor = next;
      paint();
    } else if (event.key === " ") {
      stroke((state.cursor % width) + 0.5, Math.floor(state.cursor / width) + 0.5);
    } else if (event.key === "Backspace") {
      setValues(state.values.map((value, i) => (i === state.cursor ? state.card.input.low : value)));
    } else {
      return;
    }
    event.preventDefault();
  });
  canvas.addEventListener("focus", paint);
  canvas.addEventListener("blur", paint);
}

// --- answer --------------------------------------------------------------------------------------------------

function showProblem(text) {
  $("hint").hidden = true;
  $("result").hidden = true;
  $("problem").hidden = false;
  $("problem").textContent = text;
}

function list(target, entries) {
  target.replaceChildren(...entries.flatMap(([term, text]) => [element("dt", "", term), element("dd", "", text)]));
}

function bar(kind, value, std) {
  const track = element("div", `track ${kind}`);
  const fill = element("div", "bar");
  fill.style.width = `${100 * value}%`;
  track.append(fill);
  if (std > 0.001) {
    const whisker = element("div", "whisker");
    const from = Math.max(0, value - std);
    whisker.style.left = `${100 * from}%`;
    whisker.style.width = `${100 * (Math.min(1, value + std) - from)}%`;
    track.append(whisker);
  }
  return track;
}

function showBars({ deterministic, mc }) {
  const classes = state.card.classes;
  let shown = classes.map((_, i) => i);
  if (classes.length > MOST_BARS) shown = shown.sort((a, b) => mc.mean[b] - mc.mean[a]).slice(0, MOST_BARS);
  $("caption").textContent = classes.length > MOST_BARS ? `The ${MOST_BARS} likeliest of ${classes.length} classes` : "";
  $("bars").replaceChildren(
    ...shown.map((i) => {
      const row = element("tr", classes[i] === mc.label ? "top" : "");
      const name = element("th", "", classes[i]);
      name.scope = "row";
      name.title = classes[i];
      const chart = element("td", "chart");
      chart.setAttribute("aria-hidden", "true");
      chart.append(bar("deterministic", deterministic.probabilities[i]), bar("mean", mc.mean[i], mc.std[i]));
      const both = `${percent(mc.mean[i])} ± ${(100 * mc.std[i]).toFixed(1)}`;
      row.append(name, chart, element("td", "number", percent(deterministic.probabilities[i])), element("td", "number", both));
      return row;
    }),
  );
}

/** Whether the answer is accepted, at each risk that was promised. */
function describeDecision(decision) {
  return [decision, ...decision.others]
    .map(({ accepted, risk, confidence, reason }) => {
      if (accepted === null) return `No decision${risk === null ? "" : ` at a risk of ${percent(risk)}`}: ${reason.replaceAll("_", " ")}.`;
      const promise = `at most ${percent(risk)} of accepted answers are wrong, with confidence ${percent(confidence)}`;
      return `${accepted ? "Accepted" : "Not accepted"}: ${promise}.`;
    })
    .join(" ");
}

function describeLabelSet({ labels, coverage }) {
  if (labels === null) return "";
  const shown = labels.slice(0, MOST_BARS).join(", ") + (labels.length > MOST_BARS ? ", …" : "");
  return `Label set: ${shown}; at least ${percent(coverage)} of such sets contain the true class.`;
}

function showAnswer({ deterministic, mc, uncertainty, ood, decision, label_set: labelSet }) {
  $("hint").hidden = $("problem").hidden = true;
  $("result").hidden = false;
  const verdict = $("verdict");
  verdict.className = `verdict ${ood.flagged === null ? "" : ood.flagged ? "bad" : "good"}`;
  verdict.textContent = ood.reason ? VERDICTS[ood.reason] : "Not flagged: nothing sets this apart from the training data.";
  const promise = state.card.calibration && state.card.calibration.promise;
  $("p-value").textContent =
    ood.p_value === null
      ? ""
      : `p-value ${short(ood.p_value)}; flagged at or below ${short(ood.level)}` + (promise ? `. Promise: ${promise}.` : ".");
  showExplanation(ood);
  $("decision").textContent = describeDecision(decision);
  $("label-set").textContent = describeLabelSet(labelSet);
  $("label").textContent = deterministic.label;
  $("probability").textContent = percent(deterministic.probability);
  $("members").textContent = `Committee of ${mc.samples}`;
  $("mc-label").textContent = mc.label;
  const best = state.card.classes.indexOf(mc.label);
  $("mc-probability").textContent = `${percent(mc.mean[best])} ± ${(100 * mc.std[best]).toFixed(1)}`;
  showBars({ deterministic, mc });
  list($("uncertainty"), [
    ["Predictive entropy", `${short(uncertainty.predictive_entropy)} nats: all there is to doubt`],
    ["Expected entropy", `${short(uncertainty.expected_entropy)} nats: how unsure the members are, each by itself`],
    ["Mutual information", `${short(uncertainty.mutual_information)} nats: how far the members disagree`],
  ]);
}

async function predict() {
  let instance;
  try {
    instance = read();
  } catch (error) {
    showProblem(`This is not JSON: ${error.message}`);
    return;
  }
  const asked = ++state.asked;
  const samples = $("samples").value;
  const body = { instances: [instance], parameters: { explain: true, ...(samples !== "" && { samples: Number(samples) }) } };
  const path = `v1/models/${encodeURIComponent(state.card.name)}/predict`;
  try {
    const response = await ask(path, { method: "POST", body: JSON.stringify(body) });
    const answer = await response.json();
    if (asked !== state.asked) return; // a newer request is on its way
    if (response.ok) showAnswer(answer.predictions[0]);
    else showProblem(`${answer.title}: ${answer.detail}`);
  } catch (error) {
    showProblem(`The service does not answer: ${error.message}`);
  }
}

// --- model ---------------------------------------------------------------------------------------------------

function describe(input) {
  if (input.kind === "text") return `text; its first ${input.tokenizer.length} tokens, of ${input.tokenizer.vocabulary}`;
  if (input.kind === "table") return `row with columns ${input.columns.map(describeColumn).join("; ")}`;
  return `${input.kind}, shape ${input.shape.join(" × ")}; training values lay in ${short(input.low)} to ${short(input.high)}`;
}

function describeColumn({ name, kind, low, high, categories, missing }) {
  const known = kind === "numeric" ? `${short(low)} to ${short(high)}` : categories.slice(0, 8).join(", ") + (categories.length > 8 ? ", …" : "");
  return `${name} (${known}${missing ? ", or null" : ""})`;
}

function showCard(card) {
  const { input, committee, calibration, provenance } = card;
  const network = `${card.network.class_path.split(".").pop()}, ${committee.sites.length} dropout sites (p = ${committee.sites.map((site) => site.p).join(", ")})`;
  list($("about"), [
    ["Name", `${card.name}, version ${card.version}${card.checkpoints ? `, an ensemble of ${card.checkpoints.length} checkpoints` : ""}`],
    ["Input", describe(input)],
    ["Classes", card.classes.slice(0, 50).join(", ") + (card.classes.length > 50 ? ", …" : "")],
    ["Network", network],
    ["Committee", `${committee.num_samples} members, drawn once${committee.seed === null ? "" : ` from seed ${committee.seed}`}`],
    ["Calibration", calibration ? `${calibration.n} held-out inputs, by ${calibration.scores.join(", ").replaceAll("_", " ")}` : "none"],
    ["Trained on", provenance ? provenance.data : "not recorded"],
  ]);
}

async function choose(name) {
  const response = await ask(`v1/models/${encodeURIComponent(name)}`);
  state.card = await response.json();
  const { input, committee } = state.card;
  state.cursor = 0;
  $("drawing").hidden = !drawable(input);
  $("clear").hidden = $("invert").hidden = input.kind !== "image";
  $("noise").hidden = isTextOrRow(input);
  [$("sent").textContent, $("form").textContent] = FORMS[isTextOrRow(input) ? input.kind : "numbers"];
  $("numbers").open = !drawable(input);
  $("samples").value = $("samples").max = committee.num_samples;
  showCard(state.card);
  example();
  await predict();
}

function example() {
  const { example: instance, input } = state.card;
  if (isTextOrRow(input)) {
    $("values").value = input.kind === "text" ? instance : JSON.stringify(instance, null, 1);
    return;
  }
  setValues(instance ? instance.flat(Infinity) : new Array(size(input.shape)).fill(input.low));
}

function fill(value) {
  setValues(Array.from({ length: size(state.card.input.shape) }, (_, i) => tidy(value(i))));
  predict();
}

function watchControls() {
  $("model").addEventListener("change", () => choose($("model").value));
  $("predict").addEventListener("click", predict);
  $("samples").addEventListener("change", predict);
  $("example").addEventListener("click", () => { example(); predict(); });
  $("clear").addEventListener("click", () => fill(() => state.card.input.low));
  $("noise").addEventListener("click", () => {
    const { low, high } = state.card.input;
    fill(() => low + Math.random() * (high - low));
  });
  $("invert").addEventListener("click", () => {
    const { low, high } = state.card.input;
    fill((i) => low + high - state.values[i]);
  });
  $("values").addEventListener("input", () => {
    if (isTextOrRow(state.card.input)) return;
    try {
      const flat = JSON.parse($("values").value).flat(Infinity);
      if (flat.length === size(state.card.input.shape) && flat.every(Number.isFinite)) {
        state.values = flat;
        paint();
      }
    } catch {
      // half-typed JSON; Predict will say what is wrong with it
    }
  });
}

async function listModels() {
  try {
    const response = await ask("v1/models");
    const { models, title, detail } = await response.json();
    if (!response.ok) return showProblem(`${title}: ${detail}`);
    if (models.length === 0) throw new Error("no model is loaded");
    $("model").replaceChildren(...models.map(({ name }) => element("option", "", name)));
    await choose(models[0].name);
  } catch (error) {
    showProblem(`The service is not ready: ${error.message}`);
  }
}

watchControls();
watchDrawing();
watchKey();
listModels();
