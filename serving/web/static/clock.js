/* A clock: it does something every so often, one after the other, for as long as a view is looked at. */

/** Give a function that starts it, anew with every call, and one that stops it. */
export function makeClock(seconds, act) {
  let turn = 0;
  async function run(mine) {
    while (mine === turn) {
      await act(() => mine === turn);
      await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
    }
  }
  return { start: () => run((turn += 1)), stop: () => (turn += 1) };
}
