/* Statistics of counts. */

const DEVIATIONS = 1.959964; // of the normal law, for 95%

/** Wilson's interval of 95% for a share, of which `count` of `rows` are a draw; null of none. */
export function wilson(count, rows) {
  if (rows === 0) return null;
  const [share, z2] = [count / rows, DEVIATIONS ** 2];
  const middle = (share + z2 / (2 * rows)) / (1 + z2 / rows);
  const half = (DEVIATIONS / (1 + z2 / rows)) * Math.sqrt((share * (1 - share)) / rows + z2 / (4 * rows ** 2));
  // At the ends rounding must not move it past what was counted.
  return { share, low: count === 0 ? 0 : middle - half, high: count === rows ? 1 : middle + half };
}

/** A quantile of what was counted in buckets, as Prometheus reads it: even within a bucket; null of nothing.
 *
 * `counts` has one more than `bounds`, of what lies above all; of that the largest bound is all that is known.
 */
export function quantile(bounds, counts, q) {
  const wanted = q * counts.reduce((sum, count) => sum + count, 0);
  if (wanted === 0) return null;
  let below = 0;
  for (let i = 0; i < bounds.length; i++) {
    if (below + counts[i] >= wanted) {
      const from = i === 0 ? 0 : bounds[i - 1];
      return from + ((wanted - below) / counts[i]) * (bounds[i] - from);
    }
    below += counts[i];
  }
  return bounds.at(-1);
}
