/* A plot: lines over time, drawn by uPlot in the colours of the page. */

let loading = null;

/** Load the library, once; it is no part of what every visitor waits for. */
function load() {
  loading ??= new Promise((resolve, reject) => {
    const style = Object.assign(document.createElement("link"), { rel: "stylesheet", href: "static/vendor/uPlot.min.css" });
    const script = Object.assign(document.createElement("script"), { src: "static/vendor/uPlot.iife.min.js" });
    script.addEventListener("load", () => resolve(window.uPlot));
    script.addEventListener("error", () => {
      loading = null;
      reject(new Error("The library of the charts cannot be loaded; is the service still there?"));
    });
    document.head.append(style, script);
  });
  return loading;
}

const HEIGHT = 180;
const LEAST_SECONDS = 60; // along the axis of time

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

const clock = (seconds) => new Date(1000 * seconds).toLocaleTimeString(undefined, { timeStyle: "medium" });

/** From when to when: up to the newest time, or to now before there is one. */
function span(times) {
  const last = times.at(-1) ?? Date.now() / 1000;
  return [Math.min(times[0] ?? last, last - LEAST_SECONDS), last];
}

function makeAxis(more) {
  const line = { stroke: () => colour("line"), width: 1 };
  return { stroke: () => colour("dim"), font: "12px system-ui, sans-serif", grid: line, ticks: { ...line, size: 4 }, ...more };
}

function makeSeries({ tint, dash, faint }) {
  return {
    stroke: () => colour(tint),
    width: faint ? 0.5 : 2,
    dash: dash ? [6, 5] : undefined,
    points: { show: false },
  };
}

/** Draw lines into an element.
 *
 * `lines` says of each its `tint`, and whether it is `dash`ed or `faint`; `band` are the places of an upper and a lower
 * one, between which is filled; `write` makes a label of a number; `least` is what the axis at least reaches.
 *
 * Gives a function that draws data: the times, and a list of numbers for each line.
 */
export async function makePlot(target, { lines, band, write, least }) {
  const UPlot = await load();
  const plot = new UPlot(
    {
      width: target.clientWidth || 300,
      height: HEIGHT,
      padding: [8, 36, 0, 0], // room for the newest time
      legend: { show: false },
      cursor: { show: false },
      scales: {
        x: { range: ({ data }) => span(data?.[0] ?? []) },
        y: { range: (_, low, high) => [Math.min(0, low ?? 0), 1.08 * Math.max(least, high ?? 0)] },
      },
      axes: [
        makeAxis({ values: (_, marks) => marks.map(clock), space: 90, size: 32 }),
        makeAxis({ values: (_, marks) => marks.map(write), size: 62 }),
      ],
      series: [{}, ...lines.map(makeSeries)],
      bands: band && [{ series: band, fill: () => `color-mix(in srgb, ${colour(lines[band[0] - 1].tint)} 22%, transparent)` }],
    },
    [[], ...lines.map(() => [])],
    target,
  );
  new ResizeObserver(() => target.clientWidth && plot.setSize({ width: target.clientWidth, height: HEIGHT })).observe(target);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => plot.redraw(false, true));
  return (data) => plot.setData(data);
}
