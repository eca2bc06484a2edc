/* The live charts: traffic, flags, drift and latency of a model, while one looks. */

import { makeClock } from "./clock.js";
import { $, element, percent, short } from "./dom.js";
import { makePlot } from "./plot.js";
import { readActivity, readDrift } from "./service.js";
import { wilson } from "./statistics.js";
import { Timeline } from "./timeline.js";

const SECONDS = 1;
const MOST_ROWS = 60; // of the table

const milliseconds = (seconds) => (seconds === null ? "–" : `${short(1000 * seconds)} ms`);
const rate = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)}/s`;
const interval = (known) => (known === null ? "–" : `${percent(known.low)} to ${percent(known.high)}`);

/** Each chart: its lines, how they are drawn, and what it says of the newest point. */
const CHARTS = [
  {
    title: "Traffic",
    keys: [["accent", "rows"], ["mean", "requests"], ["bad", "failed, by our fault"]],
    lines: [{ tint: "accent" }, { tint: "mean" }, { tint: "bad" }],
    least: 1,
    write: (value) => `${short(value)}/s`,
    data: (points) => ["rows", "requests", "failed"].map((name) => points.map((point) => point[name])),
    say: ({ rows, requests }) => `${rate(rows)} rows, ${rate(requests)} requests`,
  },
  {
    title: "Flagged rows of a minute",
    keys: [["accent", "share, with its 95% interval"], ["bad", "promised at most"]],
    lines: [{ tint: "accent" }, { tint: "accent", faint: true }, { tint: "accent", faint: true }, { tint: "bad", dash: true }],
    band: [2, 3],
    least: 0.1,
    write: (value) => `${Number((100 * value).toFixed(2))}%`,
    data: (points, { promised }) => [
      ...["share", "high", "low"].map((name) => points.map(({ flagged }) => flagged && flagged[name])),
      points.map(() => promised),
    ],
    say: ({ flagged }) => (flagged === null ? "none to judge" : `${percent(flagged.share)}, ${interval(flagged)}`),
  },
  {
    title: "Drift",
    keys: [["accent", "e-value"], ["bad", "alarm"]],
    lines: [{ tint: "accent" }, { tint: "bad", dash: true }],
    least: 1,
    write: (value) => (Number.isInteger(value) ? `10${power(value)}` : ""),
    data: (points, { alarm }) => [points.map(({ logE }) => logE), points.map(() => alarm)],
    say: ({ logE }) => (logE === null ? "not watched" : `e-value ${eValue(logE)}; 1 says nothing`),
  },
  {
    title: "Time of an answer, of a minute",
    keys: [["accent", "median"], ["doubt", "99 of 100"]],
    lines: [{ tint: "accent" }, { tint: "doubt" }],
    least: 0.002,
    write: (value) => `${short(1000 * value)} ms`,
    data: (points) => ["p50", "p99"].map((name) => points.map((point) => point[name])),
    say: ({ p50, p99 }) => (p50 === null ? "no requests" : `half within ${milliseconds(p50)}, 99% within ${milliseconds(p99)}`),
  },
];

const COLUMNS = [
  ["Time", ({ time }) => new Date(1000 * time).toLocaleTimeString()],
  ["Rows", ({ rows }) => rate(rows)],
  ["Requests", ({ requests }) => rate(requests)],
  ["Failed", ({ failed }) => rate(failed)],
  ["Flagged, of a minute", ({ flagged }) => (flagged === null ? "–" : percent(flagged.share))],
  ["Interval", ({ flagged }) => interval(flagged)],
  ["E-value", ({ logE }) => (logE === null ? "–" : eValue(logE))],
  ["Median, of a minute", ({ p50 }) => milliseconds(p50)],
  ["99 of 100", ({ p99 }) => milliseconds(p99)],
];

const power = (value) => String(value).replace(/[-\d]/g, (each) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(each)]);
const eValue = (logE) => (Math.abs(logE) < 4 ? short(10 ** logE) : `about 10${power(Math.round(logE))}`);

let making = null; // the charts, once
let charts = [];
let shown = { name: null, timeline: null };

async function make({ title, keys, lines, band, least, write }) {
  const figure = element("figure");
  const caption = element("figcaption");
  const now = element("span", "now");
  const legend = element("span", "legend small");
  legend.append(...keys.map(([tint, text]) => {
    const part = element("span", "part");
    part.append(element("span", `key tint-${tint}`), ` ${text}`);
    return part;
  }));
  caption.append(element("h3", "", title), now, legend);
  const target = element("div", "plot");
  target.setAttribute("aria-hidden", "true"); // the table has the same numbers
  figure.append(caption, target);
  $("charts").append(figure);
  return { now, draw: await makePlot(target, { lines, band, least, write }) };
}

/** Ask, and draw what is known by then. */
async function look(wanted) {
  try {
    const [activity, drift] = await Promise.all([readActivity(shown.name), readDrift(shown.name)]);
    if (!wanted()) return;
    shown.timeline.add(activity, drift);
    draw(activity, drift);
    $("charts-problem").hidden = true;
  } catch (error) {
    if (!wanted()) return;
    if (!$("access").hidden) return clock.stop(); // until a key is given
    $("charts-problem").hidden = false;
    $("charts-problem").textContent = error.message;
  }
}

function draw(activity, drift) {
  const { points } = shown.timeline;
  const levels = { promised: drift.flagged?.promised ?? null, alarm: drift.alarm_level === null ? null : Math.log10(drift.alarm_level) };
  const times = points.map(({ time }) => time);
  charts.forEach(({ now, draw }, i) => {
    draw([times, ...CHARTS[i].data(points, levels)]);
    now.textContent = points.length ? CHARTS[i].say(points.at(-1)) : "";
  });
  $("charts-total").textContent = describeTotal(activity, drift);
  showAlarm(drift);
  if (!$("chart-numbers").open) return;
  $("chart-rows").replaceChildren(
    ...points.slice(-MOST_ROWS).reverse().map((point) => {
      const row = element("tr");
      row.append(...COLUMNS.map(([, write]) => element("td", "", write(point))));
      return row;
    }),
  );
}

/** What there was since the start. */
function describeTotal({ model, rows, judged, flagged }, { reason, alarm_level: level }) {
  const count = Math.min(judged, Object.values(flagged).reduce((sum, each) => sum + each, 0));
  const known = wilson(count, judged);
  const share = known === null ? "" : `, ${count} of ${judged} judged flagged (${percent(known.share)}; ${interval(known)})`;
  const drift = reason ? `Drift is not watched: ${reason}.` : `The drift alarm is raised at an e-value of ${short(level)}.`;
  return `${model.name}, version ${model.version}, since the service was started: ${rows} rows${share}. ${drift}`;
}

function showAlarm({ alarm }) {
  const text = alarm ? `Drift alarm since ${new Date(alarm.time).toLocaleString()}: the rows are not like the calibration rows any more.` : "";
  $("charts-alarm").hidden = !alarm;
  if ($("charts-alarm").textContent !== text) $("charts-alarm").textContent = text; // or it would be read out every second
}

const clock = makeClock(SECONDS, look);

function pause() {
  const paused = $("pause").getAttribute("aria-pressed") === "false";
  $("pause").setAttribute("aria-pressed", String(paused));
  if (paused) clock.stop();
  else clock.start();
}

async function prepare() {
  $("charts").replaceChildren();
  charts = await Promise.all(CHARTS.map(make));
  $("chart-columns").replaceChildren(...COLUMNS.map(([title]) => Object.assign(element("th", "", title), { scope: "col" })));
  $("pause").addEventListener("click", pause);
}

/** Open the view for a model. */
export async function enter(name) {
  making ??= prepare();
  try {
    await making;
  } catch (error) {
    making = null;
    throw error;
  }
  if ($("view-charts").hidden) return; // another was opened meanwhile
  if (shown.name !== name) shown = { name, timeline: new Timeline() };
  $("pause").setAttribute("aria-pressed", "false");
  clock.start();
}

export const leave = () => clock.stop();
