/**
 * A line over HTTP: calls by POST in batches, pushes by an event stream or by long polling.
 *
 * Promises: calls leave in order, one batch at a time. What is followed is one request that names all
 * channels with a cursor, and is made again when they change; it stands for a sign of life, too.
 * The stream is read with fetch: unlike EventSource that tells heartbeats, statuses and reasons, and
 * keeps the session id out of the URL. At most CHANNELS_MAX channels fit; further ones wait for a
 * WebSocket. Positions are kept by the readers alone, so any line goes on where another one was.
 */

import { cursorOf, placeIn } from "./cursor.js";
import { decode, lostError, RtError } from "./values.js";

const CHANNELS_MAX = 64;
const FIRST_MS = 10_000; // until the first event of a stream, or the first answer to a poll
const POLL_MS = 20_000;
const STREAM_MS_MIN = 5_000; // a stream that lasted so long was cut by something between
const UNAUTHENTICATED = 401;
const HELLO = "/v1/call/server.hello";

export class Http {
  sentAt = 0;
  #polls;
  #all = new AbortController();
  #following = new AbortController(); // the stream or poll of now
  #isDue = false; // what is followed has changed, and is asked anew soon
  #isPosting = false;
  #isProven = false; // pushes can come this way
  #greeting; // a new session is asked for; it is one for all who found the old one ended

  constructor(link, { polls }) {
    this.link = link;
    this.#polls = polls;
  }

  async open({ positions, heartbeat_ms, ...hello }) {
    this.hello = hello;
    try {
      await this.#greet();
      if (this.link.feeds.size) await this.#follow();
      else this.link.greeted(this, this.reply);
    } catch (error) {
      this.#lost(error);
    }
  }

  async #greet() {
    const response = await this.#post(HELLO, this.hello);
    this.reply = decode(await response.json());
    this.session = this.reply.session;
  }

  // --- requests ---

  /** A good response; throws the problem (RFC 9457) of another one. */
  async #fetch(path, init, isAgain = false) {
    const session = path !== HELLO && this.session && { "Rt-Session": this.session };
    const headers = { ...init.headers, ...session };
    const options = { signal: this.#all.signal, cache: "no-store", ...init, headers };
    const response = await this.link.env.fetch(this.link.url + path, options);
    this.link.heard(this);
    if (response.ok) return response;
    if (response.status !== UNAUTHENTICATED || !session) throw await problemOf(response);
    if (isAgain) throw lostError("the session ended at once");
    if (session["Rt-Session"] === this.session) { // a session that nothing was asked in ends
      this.#greeting ??= this.#greet().finally(() => this.#greeting = undefined);
      await this.#greeting;
    }
    return this.#fetch(path, init, true);
  }

  #post(path, body) {
    this.sentAt = Date.now();
    const headers = { "Content-Type": "application/json" };
    return this.#fetch(path, { method: "POST", headers, body: JSON.stringify(body) });
  }

  async pump() {
    if (this.#isPosting) return;
    this.#isPosting = true;
    try {
      for (let calls = this.link.calls.take(); calls.length; calls = this.link.calls.take()) {
        const answers = await this.#batch(calls);
        if (this.isClosed) return;
        calls.forEach(([, id], place) => {
          this.link.calls.reply(id, answers[place].error, answers[place].result);
        });
      }
    } catch (error) {
      this.#lost(error);
    } finally {
      this.#isPosting = false;
    }
  }

  /** [{result} or {error}] of calls; a refusal of the whole is one of each. */
  async #batch(calls) {
    try {
      const response = await this.#post("/v1/batch", calls.map(([, , ...call]) => call));
      return decode(await response.json());
    } catch (error) {
      if (!isRefusal(error)) throw error;
      return calls.map(() => ({ error: asWire(error) }));
    }
  }

  // --- what is followed ---

  /** Asks anew; other changes until the page's next turn go into the same request. */
  follow() {
    if (this.#isDue) return;
    this.#isDue = true;
    this.link.env.setTimeout(() => {
      if (!this.isClosed && this.#isDue) this.#follow().catch((error) => this.#lost(error));
    }, 0);
  }

  unfollow() {
    this.follow();
  }

  async #follow() {
    this.#isDue = false;
    this.#following.abort();
    this.#following = new AbortController();
    const { signal } = this.#following;
    const feeds = [...this.link.feeds].slice(0, CHANNELS_MAX);
    if (!feeds.length) return;
    const late = () => this.#lost(lostError(`nothing came in ${FIRST_MS} ms`));
    const timer = this.link.env.setTimeout(late, FIRST_MS);
    const asked = { signal, timer, feeds, asks: new Map() };
    try {
      await this.#begin(feeds);
      for (const feed of feeds) asked.asks.set(feed.name, feed.ask());
      await (this.#polls ? this.#poll(asked) : this.#stream(asked));
    } catch (error) {
      if (signal.aborted) return;
      if (!isRefusal(error)) throw error;
      this.#prove(asked);
      const refused = feeds.map((feed) => [feed.name, { error: asWire(error) }]);
      this.#replied(asked, Object.fromEntries(refused));
    } finally {
      this.link.env.clearTimeout(timer);
    }
  }

  /** Who begins with the newest n asks the history: a cursor cannot say it. */
  async #begin(feeds) {
    for (const feed of feeds) {
      const ask = feed.ask();
      if (ask.since?.last === undefined) continue;
      const limit = Math.max(1, ask.since.last);
      const call = [0, 0, "channel.history", [feed.name, null, null, limit], {}];
      const [{ error, result }] = await this.#batch([call]);
      if (error) this.link.feeds.replied(this, feed, { error }, ask);
      else if (!result.epoch) ask.fresh.forEach((reader) => reader._since = undefined);
      else {
        const { epoch, offset } = result;
        const messages = ask.since.last ? result.messages : [];
        feed.replied({ epoch, offset, recovered: false, messages }, ask, () => {});
      }
    }
  }

  #query({ feeds, asks }) {
    const positions = [...asks].filter(([, { since }]) => Array.isArray(since));
    const presence = feeds.filter((feed) => feed.presence).map((feed) => feed.name);
    const query = new URLSearchParams({ channels: [...asks.keys()].join() });
    if (presence.length) query.set("presence", presence.join());
    return [query, cursorOf(positions.map(([name, { since }]) => [name, since]))];
  }

  /** Something came: the line works. What was joined since the request was made is asked next. */
  #prove({ timer, asks }) {
    this.link.env.clearTimeout(timer);
    if (this.#isProven) return;
    this.#isProven = true;
    if (this.link.line !== this) this.link.greeted(this, this.reply);
    const names = [...this.link.feeds].slice(0, CHANNELS_MAX).map((feed) => feed.name);
    if (names.some((name) => !asks.has(name))) this.follow();
  }

  #replied({ feeds, asks }, replies) {
    for (const feed of feeds) {
      const reply = replies[feed.name];
      if (reply) this.link.feeds.replied(this, feed, reply, asks.get(feed.name));
    }
  }

  async #stream(asked) {
    const [query, cursor] = this.#query(asked);
    if (cursor) query.set("last_event_id", cursor);
    const startedAt = Date.now();
    const headers = { Accept: "text/event-stream" };
    const response = await this.#fetch(`/v1/stream?${query}`, { signal: asked.signal, headers });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (let read = await reader.read(); !read.done; read = await reader.read()) {
      if (asked.signal.aborted) return;
      this.link.heard(this);
      const events = (text + read.value).split("\n\n");
      text = events.pop();
      for (const event of events) this.#event(asked, event);
    }
    if (asked.signal.aborted) return;
    if (Date.now() - startedAt < STREAM_MS_MIN) throw lostError("the event stream ended");
    this.follow();
  }

  #event(asked, event) {
    for (const line of event.split("\n")) {
      if (asked.signal.aborted) return;
      if (!line.startsWith("data:")) continue;
      const [, name, params] = decode(JSON.parse(line.slice("data:".length)));
      if (name === "subscribed") {
        this.#prove(asked);
        this.#replied(asked, params.channels);
      } else {
        this.link.pushed(this, name, params);
      }
    }
  }

  async #poll(asked) {
    const { signal, feeds, asks } = asked;
    const [query, start] = this.#query(asked);
    for (const feed of feeds) {
      const ask = asks.get(feed.name);
      if (placeIn(start, feed.name) && feed.goOn(ask)) this.follow();
    }
    query.set("cursor", start);
    query.set("timeout_ms", "0"); // the first answer shows at once that polling works
    while (!signal.aborted) {
      const response = await this.#fetch(`/v1/poll?${query}`, { signal });
      const { messages, cursor, channels = {} } = decode(await response.json());
      if (signal.aborted) return;
      this.#prove(asked);
      this.#replied(asked, channels);
      for (const [, name, params] of messages) this.link.pushed(this, name, params);
      for (const feed of feeds) feed.isAt(placeIn(cursor, feed.name));
      query.set("cursor", cursor);
      query.set("timeout_ms", String(POLL_MS));
    }
  }

  // --- life and end ---

  probe() {
    this.sentAt = Date.now();
    if (this.link.feeds.size) this.follow();
    else this.rest();
  }

  /** Also keeps the session from ending. */
  rest() {
    this.#post("/v1/call/server.ping", []).catch((error) => this.#lost(error));
  }

  #lost(error) {
    if (this.isClosed) return;
    this.link.lost(this, error instanceof RtError ? error : lostError(String(error)));
  }

  close() {
    this.isClosed = true;
    this.#all.abort();
    this.#following.abort();
  }
}

/** A request that will be refused again, however often it is made. */
const isRefusal = (error) => error.status >= 400 && error.status < 500
  && error.status !== UNAUTHENTICATED && error.code > 0 && !error.retryable;

const asWire = ({ code, name, message, details }) => [code, name, message, details];

async function problemOf(response) {
  const problem = await response.json().catch(() => ({}));
  const { code = 0, name = "connection_lost", retryable = true, details = null } = problem;
  const message = problem.detail ?? `${response.url} answered ${response.status}`;
  const error = new RtError(code, name, message, details, retryable);
  error.status = response.status;
  return error;
}
