/* Pixels: between the numbers that a model takes and what a canvas holds. */

import { tidy } from "./instance.js";

/** Show a flat image on a canvas, each value between the smallest and the largest of training. */
export function drawPixels(canvas, flat, { shape: [channels, height, width], low, high }) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const area = width * height;
  for (let i = 0; i < area; i++) {
    for (let channel = 0; channel < 3; channel++) {
      const value = flat[(channels === 3 ? channel : 0) * area + i];
      image.data[4 * i + channel] = Math.round((255 * (value - low)) / (high - low || 1));
    }
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  return image;
}

/** A picture brought to the model's size, each side by itself as training does, in its colours and its range. */
export function readPixels(bitmap, input) {
  const [channels, height, width] = input.shape;
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.fillStyle = "white"; // behind what is transparent
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0, width, height);
  const { data } = context.getImageData(0, 0, width, height);
  const area = width * height;
  const flat = new Array(channels * area);
  for (let i = 0; i < area; i++) {
    const rgb = data.subarray(4 * i, 4 * i + 3);
    const grey = 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2];
    for (let channel = 0; channel < channels; channel++) {
      const byte = channels === 3 ? rgb[channel] : grey;
      flat[channel * area + i] = tidy(input.low + (byte / 255) * (input.high - input.low), input);
    }
  }
  return flat;
}
