/* The drawing: an image that is painted by mouse, finger or keyboard, or read from a file. */

import { $ } from "./dom.js";
import { current, edit, isDrawable, tidy, watch } from "./instance.js";
import { drawPixels, readPixels } from "./pixels.js";

let cursor = 0; // the pixel that the keyboard is at

/** Make ready for another model. */
export function setUpDrawing(input) {
  cursor = 0;
  $("picture").hidden = $("drawing-keys").hidden = !isDrawable(input);
  if (!isDrawable(input)) return;
  $("pen-field").hidden = input.shape[0] === 1;
  $("grid").style.aspectRatio = `${input.shape[2]} / ${input.shape[1]}`;
}

function paint() {
  const { input } = current.card;
  if (!isDrawable(input)) return;
  const image = drawPixels($("grid"), current.value, input);
  if (!$("grid").matches(":focus-visible")) return;
  image.data.set([230, 60, 60, 255], 4 * cursor);
  $("grid").getContext("2d").putImageData(image, 0, 0);
}

/** What the pen leaves in each channel, from 0 to 1. */
function ink(channels) {
  if (channels === 1) return [1];
  return [1, 3, 5].map((at) => parseInt($("pen").value.slice(at, at + 2), 16) / 255);
}

/** Ink the pixels near (x, y), in pixels, like a soft pen. */
function stroke(flat, x, y) {
  const { input } = current.card;
  const { low, high, shape: [channels, height, width] } = input;
  const radius = Math.max(0.9, width / 16);
  const colour = ink(channels);
  const reach = Math.ceil(1.25 * radius);
  for (let row = Math.max(0, Math.floor(y) - reach); row <= Math.min(height - 1, y + reach); row++) {
    for (let column = Math.max(0, Math.floor(x) - reach); column <= Math.min(width - 1, x + reach); column++) {
      const distance = Math.hypot(column + 0.5 - x, row + 0.5 - y);
      const share = Math.min(1, Math.max(0, 1.25 - distance / radius));
      colour.forEach((part, channel) => {
        const i = (channel * height + row) * width + column;
        const inked = tidy(low + part * (high - low), input);
        // Grey only gets brighter: strokes beside each other leave no seam.
        flat[i] = channels === 1 ? Math.max(flat[i], tidy(low + share * (high - low), input)) : tidy(flat[i] + share * (inked - flat[i]), input);
      });
    }
  }
}

function erase(flat) {
  const { low, shape: [channels, height, width] } = current.card.input;
  for (let channel = 0; channel < channels; channel++) flat[channel * height * width + cursor] = low;
}

function change(make) {
  const flat = current.value.slice();
  make(flat);
  edit(flat, "drawing");
}

function move(key) {
  const [, height, width] = current.card.input.shape;
  const step = Math.max(1, Math.round(width / 32));
  const [row, column] = [Math.floor(cursor / width), cursor % width];
  const [down, right] = { ArrowLeft: [0, -step], ArrowRight: [0, step], ArrowUp: [-step, 0], ArrowDown: [step, 0] }[key];
  const clip = (value, most) => Math.min(most, Math.max(0, value));
  cursor = clip(row + down, height - 1) * width + clip(column + right, width - 1);
  paint();
}

/** Take the first picture among files. */
async function readFile(files, predict, complain) {
  const file = [...files][0];
  if (!file || !current.card || !isDrawable(current.card.input) || $("view-try").hidden) return;
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    complain(`${file.name || "This"} is no picture that this browser can read; PNG, JPEG, WebP, GIF and BMP files are.`);
    return;
  }
  edit(readPixels(bitmap, current.card.input), "file");
  bitmap.close();
  predict();
}

/** Watch mouse, keyboard and files; whatever changes the picture is predicted. */
export function watchDrawing(predict, complain) {
  const canvas = $("grid");
  let last = null;
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [((event.clientX - box.left) / box.width) * canvas.width, ((event.clientY - box.top) / box.height) * canvas.height];
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    last = at(event);
    change((flat) => stroke(flat, ...last));
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!last) return;
    const next = at(event);
    const steps = Math.max(1, Math.ceil(2 * Math.hypot(next[0] - last[0], next[1] - last[1])));
    change((flat) => {
      for (let i = 1; i <= steps; i++) {
        stroke(flat, last[0] + ((next[0] - last[0]) * i) / steps, last[1] + ((next[1] - last[1]) * i) / steps);
      }
    });
    last = next;
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, () => {
      if (last) predict();
      last = null;
    });
  }
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const width = current.card.input.shape[2];
    if (event.key.startsWith("Arrow")) {
      move(event.key);
    } else if (event.key === " " || event.key === "Backspace") {
      change((flat) => (event.key === " " ? stroke(flat, (cursor % width) + 0.5, Math.floor(cursor / width) + 0.5) : erase(flat)));
      predict();
    } else {
      return;
    }
    event.preventDefault();
  });
  canvas.addEventListener("focus", paint);
  canvas.addEventListener("blur", paint);
  $("file").addEventListener("change", async () => {
    await readFile($("file").files, predict, complain);
    $("file").value = ""; // the same file may be chosen again
  });
  document.addEventListener("paste", (event) => {
    if (event.clipboardData.files.length) readFile(event.clipboardData.files, predict, complain);
  });
  // A file that misses the picture would replace the page.
  for (const kind of ["dragover", "drop"]) document.addEventListener(kind, (event) => event.preventDefault());
  document.addEventListener("dragover", () => $("picture").classList.add("over"));
  for (const kind of ["drop", "dragend", "dragleave"]) document.addEventListener(kind, () => $("picture").classList.remove("over"));
  document.addEventListener("drop", (event) => readFile(event.dataTransfer.files, predict, complain));
  watch(paint);
}
