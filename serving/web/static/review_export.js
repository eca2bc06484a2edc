/* The export: labelled rows as a file on the visitor's disk. */

import { element } from "./dom.js";
import { exportReviews } from "./service.js";

const READ_SECONDS = 60; // the browser reads the file after the click

/** Save the labelled rows of a filter, whatever state it shows, as a file; gives what is in it, in words. */
export async function save({ state: _, ...filter }, format) {
  const { file, rows, withoutInput } = await exportReviews({ ...filter, format });
  const link = element("a");
  link.href = URL.createObjectURL(file);
  link.download = `reviews.${format}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000 * READ_SECONDS);
  const more = withoutInput ? `; of ${withoutInput} more the input is not stored in full` : "";
  return `${rows} labelled ${rows === 1 ? "row is" : "rows are"} in reviews.${format}${more}.`;
}
