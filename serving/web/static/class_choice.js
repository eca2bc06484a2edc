/* The choice of a class: one is chosen before it is taken, and some have a key of their own. */

import { element } from "./dom.js";

/** The key that takes each class at once: its own character, or, where none has a name of one, its place. */
export function keysOf(classes) {
  const alone = classes.filter((name) => [...name].length === 1);
  if (alone.length > 0) return new Map(alone.map((name) => [name, name])); // the key 1 must not mean the class 0
  if (classes.some((name) => /^\d/.test(name))) return new Map();
  return new Map(classes.slice(0, 10).map((name, i) => [String((i + 1) % 10), name]));
}

/** The class that a first letter leads to: the next one, going round from the one that is chosen. */
export function byLetter(classes, chosen, letter) {
  const start = classes.indexOf(chosen) + 1;
  return [...classes.slice(start), ...classes.slice(0, start)].find((name) => name.toLowerCase().startsWith(letter.toLowerCase()));
}

/** The class so many places after another, going round. */
export const byStep = (classes, chosen, step) =>
  classes.at((Math.max(0, classes.indexOf(chosen)) + step) % classes.length);

/** A button for each class; `take` is told which is pressed. */
export function drawClasses(classes, chosen, take) {
  const keys = new Map([...keysOf(classes)].map(([key, name]) => [name, key]));
  return classes.map((name) => {
    const made = element("button", name === chosen ? "choice chosen" : "choice");
    made.type = "button";
    if (keys.has(name)) made.append(element("kbd", "", keys.get(name)), " ");
    if (keys.get(name) !== name) made.append(name);
    if (name === chosen) made.setAttribute("aria-current", "true");
    made.addEventListener("click", () => take(name));
    return made;
  });
}
