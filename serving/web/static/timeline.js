/* The timeline: what a model did lately, made of the differences between looks at what the service counts. */

import { quantile, wilson } from "./statistics.js";

const SECONDS = 60; // over which shares and times are taken
const TRAFFIC_SECONDS = 5;
const MOST = 900; // looks

const total = (counts) => Object.values(counts).reduce((sum, count) => sum + count, 0);

/** One look: an answer of `activity` and one of `drift`. */
function read({ model, time, requests, seconds, rows, judged, flagged }, drift) {
  return {
    version: model.version,
    time: Date.parse(time) / 1000,
    requests: total(requests),
    failed: total(Object.fromEntries(Object.entries(requests).filter(([status]) => status >= "500"))),
    counts: seconds.counts,
    bounds: seconds.bounds,
    rows,
    judged,
    flagged: Math.min(judged, total(flagged)),
    eValue: drift.e_value,
  };
}

export class Timeline {
  #looks = [];

  constructor() {
    this.points = [];
  }

  /** Add what was seen just now; another version, or a service that began anew, begins the timeline anew. */
  add(activity, drift) {
    const look = read(activity, drift);
    const before = this.#looks.at(-1);
    if (before && (before.version !== look.version || before.requests > look.requests)) {
      this.#looks = [];
      this.points = [];
    }
    this.#looks.push(look);
    if (this.#looks.length > 1) this.points.push(this.#point(look));
    if (this.#looks.length > MOST) {
      this.#looks.shift();
      this.points.shift();
    }
  }

  /** The look some time before another, or the first there is. */
  #ago(look, seconds) {
    return this.#looks.find(({ time }) => time >= look.time - seconds - 0.5);
  }

  #point(look) {
    const shortly = this.#ago(look, TRAFFIC_SECONDS), from = this.#ago(look, SECONDS);
    const elapsed = look.time - shortly.time || 1;
    const counts = look.counts.map((count, i) => count - from.counts[i]);
    return {
      time: look.time,
      requests: (look.requests - shortly.requests) / elapsed,
      rows: (look.rows - shortly.rows) / elapsed,
      failed: (look.failed - shortly.failed) / elapsed,
      flagged: wilson(Math.max(0, look.flagged - from.flagged), look.judged - from.judged),
      logE: look.eValue === null ? null : Math.log10(Math.max(look.eValue, 1e-300)),
      p50: quantile(look.bounds, counts, 0.5),
      p99: quantile(look.bounds, counts, 0.99),
    };
  }
}
