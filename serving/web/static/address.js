/* The address: which view, which model, and which rows are shown stand in its query, so that a link leads to them. */

export const given = (name) => new URLSearchParams(location.search).get(name);

/** Change some of it; null takes one away. A `step` can be gone back. */
export function change(values, { step = false } = {}) {
  const address = new URL(location.href);
  for (const [name, value] of Object.entries(values)) {
    if (value === null) address.searchParams.delete(name);
    else address.searchParams.set(name, value);
  }
  if (address.href !== location.href) history[step ? "pushState" : "replaceState"](null, "", address);
}
