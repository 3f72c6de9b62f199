/**
 * One reader of one channel, or of one watched thing.
 *
 * Promises: every item from its position on, in order and once, whatever the connection does; a gap
 * in place of what is missing. An iterator that is slower than its channel holds at most BUFFER_MAX
 * items, the oldest of which then become a gap; of a watched thing it holds the newest state only.
 */

import { Events, RtError } from "./values.js";

const BUFFER_MAX = 10_000;

/** Messages are missing here. lost: how many, null where nobody can know; why: "history" (it is
 * not kept any more), "epoch" (the channel began anew) or "slow" (the reader was). */
export class Gap {
  constructor(channel, lost, why) {
    this.channel = channel;
    this.lost = lost;
    this.why = why;
  }
}

export class Subscription extends Events {
  // Its place in the channel, which feeds.js keeps.
  _begun = false; // it has a position
  _held = false; // what comes does not follow its position: another subscribe is under way
  _epoch = "";
  _offset = 0;

  #leave;
  #view;
  #pick;
  #callback;
  #settle;
  #state = null;
  #queue = [];
  #wake = null;
  #ended = false;
  #error = null;

  /** callback: without one, items wait for an iterator. view: of a watched thing, makes what is
   * told of a state. pick: makes what is told of a message. leave: tells the feeds that nobody
   * reads here any more. */
  constructor(channel, { since, presence = false, callback, view, pick }, leave) {
    super();
    this.channel = channel;
    this._since = since;
    this._presence = presence;
    this.#view = view;
    this.#pick = pick ?? ((message) => message);
    this.#callback = callback;
    this.#leave = leave;
    if (callback) this.on("item", callback);
    /** The first subscribe reply, or why there is none. */
    this.ready = new Promise((resolve, reject) => {
      this.#settle = { resolve, reject };
    });
    if (!callback) this.ready.catch(() => {}); // the iterator throws it
  }

  /** Where to read on, good for `since`; undefined before the first reply. */
  get position() {
    return this._begun ? [this._epoch, this._offset] : undefined;
  }

  /** Of a watched thing: what was told last. */
  get value() {
    return this.#state === null ? undefined : this.#view(this.#state);
  }

  close() {
    this.#leave(this);
    this._end(null);
  }

  async *[Symbol.asyncIterator]() {
    if (this.#callback) throw new TypeError("a callback gets the items; leave it out to iterate");
    try {
      for (;;) {
        while (this.#queue.length) yield this.#queue.shift();
        if (this.#error) throw this.#error;
        if (this.#ended) return;
        await new Promise((resolve) => {
          this.#wake = resolve;
        });
      }
    } finally {
      this.close();
    }
  }

  // --- from its feed ---

  _begin(epoch, offset) {
    this._begun = true;
    this._epoch = epoch;
    this._offset = offset;
  }

  _subscribed(reply) {
    this.#settle.resolve(reply);
    this._emit("subscribed", reply);
    if (reply.state !== undefined) this.#show(reply.state);
  }

  _message(message) {
    if (!this._begun || this._held || this.#ended) return;
    if (message.offset !== undefined) { // a transient message has none
      if (message.offset <= this._offset) return;
      this._offset = message.offset;
    }
    if (!this.#view) this.#tell(this.#pick(message));
    else if (message.data.full) this.#show(message.data);
    else if (this.#state) this.#show(changed(this.#state, message.data));
  }

  /** The gap, or undefined where it means nothing: a watch shows the present. */
  _gap(lost, why) {
    if (this.#view || !this._begun) return undefined;
    const gap = new Gap(this.channel, lost, why);
    this._emit("gap", gap);
    if (!this.#callback) this.#enqueue(gap);
    return gap;
  }

  _end(error) {
    if (this.#ended) return;
    this.#ended = true;
    this.#error = error;
    if (!error) this.ready.catch(() => {});
    this.#settle.reject(error ?? new RtError(0, "closed", `${this.channel} was left`));
    this._emit("end", error);
    this.#wake?.();
  }

  // --- to its owner ---

  #show(state) {
    this.#state = state;
    this.#queue.length = 0;
    this.#tell(this.#view(state));
  }

  #tell(item) {
    this._emit("item", item);
    if (!this.#callback) this.#enqueue(item);
  }

  #enqueue(item) {
    if (this.#queue.length >= BUFFER_MAX) {
      const oldest = this.#queue.splice(0, BUFFER_MAX / 2);
      const lost = oldest.reduce((sum, one) => sum + (one instanceof Gap ? (one.lost ?? 0) : 1), 0);
      this.#queue.unshift(new Gap(this.channel, lost, "slow"));
    }
    this.#queue.push(item);
    this.#wake?.();
  }
}

/** The state of a watched thing after a difference (protocol.md section 7): a board's says how
 * entries moved, others replace the fields that they hold, and of `items` those that are named. */
export function changed(state, difference) {
  if (difference.leave) return boardChanged(state, difference);
  const items = difference.items && { items: { ...state.items, ...difference.items } };
  return { ...state, ...difference, ...items };
}

function boardChanged(state, { leave, enter = [], move = [], count }) {
  const entries = new Map(state.entries.map((entry) => [entry.member, entry]));
  for (const member of leave) entries.delete(member);
  for (const entry of [...enter, ...move]) entries.set(entry.member, entry);
  return { entries: [...entries.values()].sort((one, other) => one.rank - other.rank), count };
}
