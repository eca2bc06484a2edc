/* The queue: stored answers page by page, which of them is looked at, and what was said last. */

import { changeReview, listReviews, readReview } from "./service.js";

const PAGE = 50;

export class Queue {
  /** `filter` as the service's list takes it. */
  constructor(filter) {
    this.filter = filter;
    this.reviews = [];
    this.at = 0;
    this.after = null; // where the next page begins
    this.details = new Map(); // with their whole inputs, by id
    this.said = []; // how reviews were before, the last one last
  }

  get chosen() {
    return this.reviews[this.at] ?? null;
  }

  /** Add the next page, of an empty queue the first one. */
  async more() {
    const from = this.after === null ? {} : { after: this.after };
    const page = await listReviews({ ...this.filter, ...from, inputs: "preview", limit: PAGE });
    this.reviews.push(...page.reviews);
    this.after = page.after;
  }

  /** Go to a place, and fetch what comes next where it is the last one; whether it is another. */
  async go(place) {
    if (place >= this.reviews.length && this.after !== null) await this.more();
    const at = Math.max(0, Math.min(place, this.reviews.length - 1));
    const moved = at !== this.at;
    this.at = at;
    return moved;
  }

  /** The review that is looked at, with its whole input; the next one is fetched meanwhile. */
  async detail() {
    const [review, next] = this.reviews.slice(this.at, this.at + 2);
    for (const id of this.details.keys()) if (id !== review.id && id !== next?.id) this.details.delete(id); // they can be large
    const asked = this.#fetch(review);
    if (next) this.#fetch(next).catch(() => {}); // it is fetched again when its turn comes
    return { ...(await asked), state: review.state, label: review.label };
  }

  async #fetch(review) {
    const { id, input } = review;
    // What a list shows of tables and texts is all there is.
    if (input.form === "hash" || input.form === "json") return review;
    if (!this.details.has(id)) this.details.set(id, readReview(id));
    try {
      return await this.details.get(id);
    } catch (error) {
      this.details.delete(id);
      throw error;
    }
  }

  /** Say something about the review that is looked at. */
  async say(change) {
    const { id, state, label } = this.chosen;
    await this.#change(id, change);
    this.said.push({ id, before: state === "labelled" ? { label, new_label: true } : { state } });
  }

  /** Take back what was said last, and look at that review; false where nothing was. */
  async undo() {
    const last = this.said.at(-1);
    if (last === undefined) return false;
    await this.#change(last.id, last.before);
    this.said.pop();
    this.at = this.reviews.findIndex(({ id }) => id === last.id);
    return true;
  }

  async #change(id, change) {
    const { state, label } = await changeReview(id, change);
    Object.assign(this.reviews.find((each) => each.id === id), { state, label });
  }
}
