/**
 * The channels that a client follows: one subscription at the server each, however many read here.
 *
 * Each reader has a position of its own, and passes over what is not after it. So a subscribe may
 * always begin earlier than some reader's position, and connections may overlap; only a reply that
 * begins later than a reader's position holds her back, until another one serves her.
 */

import { fromWire, RtError } from "./values.js";

const RETRY_MS = 1_000; // before a subscribe that was refused for now is sent again

class Feed {
  asking = false; // a subscribe is under way
  again = false; // and another one has to follow it

  constructor(name) {
    this.name = name;
    this.readers = new Set();
  }

  get presence() {
    return [...this.readers].some((reader) => reader._presence);
  }

  /** The place that every reader can go on from; undefined when no reader has one. */
  position() {
    const placed = [...this.readers].filter((reader) => reader._begun);
    if (!placed.length) return undefined;
    return [placed[0]._epoch, Math.min(...placed.map((reader) => reader._offset))];
  }

  #fresh() {
    return [...this.readers].filter((reader) => !reader._begun);
  }

  /** What to ask next: {since, fresh: those without a position for whom it is asked}. */
  ask() {
    const [first, ...others] = this.#fresh();
    if (!first) return { since: this.position(), fresh: [] };
    const since = JSON.stringify(first._since);
    const alike = others.filter((reader) => JSON.stringify(reader._since) === since);
    return { since: first._since, fresh: [first, ...alike] };
  }

  /** What comes from here on follows `since`. True when another subscribe has to follow. */
  goOn({ since, fresh }) {
    for (const reader of this.readers) reader._held = false;
    for (const reader of fresh) {
      reader._begin(...since);
      reader._subscribed({ epoch: since[0], offset: since[1], recovered: true, messages: [] });
    }
    return this.#fresh().length > 0;
  }

  /** A poll's cursor says where it is, also after the channel began anew. */
  isAt(position) {
    if (!position) return;
    const [epoch, offset] = position;
    for (const reader of this.readers) {
      if (reader._begun && reader._epoch !== epoch) reader._begin(epoch, offset);
    }
  }

  /** A subscribe reply; `tell` hears of gaps. True when another subscribe has to follow. */
  replied(reply, { since, fresh }, tell) {
    const { epoch, offset, recovered, messages = [] } = reply;
    const base = messages.length ? (messages[0].offset ?? 1) - 1 : offset;
    const isPlace = Array.isArray(since);
    for (const reader of fresh) reader._begin(...(isPlace ? since : [epoch, base]));
    let isBehind = this.#fresh().length > 0;
    for (const reader of this.readers) {
      if (!reader._begun) continue;
      reader._held = false;
      if (reader._epoch !== epoch || reader._offset > offset) {
        tell(reader._gap(null, "epoch"));
        reader._begin(epoch, base);
      } else if (reader._offset < base) {
        const wasHers = isPlace && since[1] <= reader._offset;
        if (!wasHers) reader._held = isBehind = true;
        else if (!recovered) {
          tell(reader._gap(base - reader._offset, "history"));
          reader._offset = base;
        }
      }
      reader._subscribed(reply);
      for (const message of messages) reader._message({ channel: this.name, ...message });
      if (recovered && !reader._held) reader._offset = Math.max(reader._offset, offset);
    }
    return isBehind;
  }
}

export class Feeds {
  #feeds = new Map();
  #env;
  #emit;

  /** emit(name, value): events that concern the whole client. */
  constructor(env, emit) {
    this.#env = env;
    this.#emit = emit;
    this.line = null; // the connection, while there is one
  }

  [Symbol.iterator]() {
    return this.#feeds.values();
  }

  get size() {
    return this.#feeds.size;
  }

  join(reader) {
    let feed = this.#feeds.get(reader.channel);
    if (!feed) this.#feeds.set(reader.channel, (feed = new Feed(reader.channel)));
    feed.readers.add(reader);
    this.line?.follow(feed);
  }

  leave(reader) {
    const feed = this.#feeds.get(reader.channel);
    if (!feed?.readers.delete(reader) || feed.readers.size) return;
    this.#feeds.delete(feed.name);
    this.line?.unfollow(feed.name);
  }

  // --- from the connection ---

  /** {channel: position} of those that have one. */
  positions() {
    const placed = [...this].map((feed) => [feed.name, feed.position()]);
    return Object.fromEntries(placed.filter(([, position]) => position));
  }

  /** A new connection answered our positions; the rest is subscribed anew. */
  resumed(line, positions, { channels, resumed }) {
    for (const feed of this) {
      feed.asking = feed.again = false;
      const since = positions[feed.name];
      const reply = since && channels[feed.name];
      if (reply) this.replied(line, feed, reply, { since, fresh: [] });
      if (!reply || (feed.presence && !resumed)) line.follow(feed);
    }
    for (const name of Object.keys(channels)) if (!this.#feeds.has(name)) line.unfollow(name);
  }

  /** A subscribe reply, or {error}. */
  replied(line, feed, reply, ask) {
    if (this.#feeds.get(feed.name) !== feed) return; // left meanwhile
    feed.asking = false;
    if (reply.error) {
      this.#refused(line, feed, fromWire(reply.error));
      return;
    }
    const tell = (gap) => gap && this.#emit("gap", gap);
    if (feed.replied(reply, ask, tell) || feed.again) line.follow(feed);
  }

  #refused(line, feed, error) {
    if (!error.retryable) this.#end(feed, error);
    else {
      this.#env.setTimeout(() => {
        if (line === this.line && this.#feeds.get(feed.name) === feed) line.follow(feed);
      }, RETRY_MS);
    }
  }

  pushed(name, params) {
    const feed = this.#feeds.get(params.channel);
    const readers = [...(feed?.readers ?? [])];
    if (name === "message") {
      for (const reader of readers) reader._message(params);
    } else if (name === "gap") {
      for (const reader of readers) this.#gap(reader, params);
    } else if (name !== "unsubscribed") {
      for (const reader of readers) reader._emit(name, params); // join, leave
      this.#emit(name, params);
    } else if (feed) {
      this.#end(feed, new RtError(params.code, params.name, params.message, params));
    }
  }

  #gap(reader, { lost, from, to, why }) {
    const gap = reader._gap(lost ?? (to === undefined ? null : to - from + 1), why);
    if (why === "epoch") reader._offset = 0;
    else if (to !== undefined) reader._offset = Math.max(reader._offset, to);
    if (gap) this.#emit("gap", gap);
  }

  #end(feed, error) {
    this.#feeds.delete(feed.name);
    for (const reader of feed.readers) reader._end(error);
  }

  end(error) {
    for (const feed of [...this]) this.#end(feed, error);
  }
}
