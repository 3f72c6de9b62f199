/**
 * The browser client of rtserver: ES modules without dependencies. Types are in rtserver.d.ts.
 *
 *     import { connect } from "./rtserver.js";
 *
 *     const rt = connect(location.origin, { user: "ann" });
 *     await rt.counter.add("likes:42");
 *     rt.channel.subscribe("room:1", (message) => console.log(message.data));
 *     for await (const likes of rt.counter.watch("likes:42")) console.log(likes);
 *
 * Promises: messages of a channel come in order and once, over any number of reconnects, transports
 * and restarts of the server, or a gap is told in their place; writes that were not answered are sent
 * again under a key, and so applied once. Nothing is stored, and no other host is asked.
 *
 * Read on in link.js (which connection, when), socket.js and http.js (the transports), feeds.js and
 * subscription.js (channels), calls.js (requests).
 */

import { COMMANDS } from "./commands.js";
import { Link } from "./link.js";
import { Gap, Subscription } from "./subscription.js";
import { Events, RtError } from "./values.js";

export { Gap, RtError };

const OWNED = new Set(["server.hello", "channel.subscribe", "channel.unsubscribe"]);

/**
 * A client of the server at `url`; it connects by itself, and calls wait until it has.
 *
 * user, token, role, client: who calls, as hello takes it; `token` may be a function that fetches
 * one, and is asked anew at each connection. transport: one of "ws", "sse", "poll" or a list of them,
 * best first (default: all). retryWrites: false sends no write twice. env: what is used of the
 * browser (WebSocket, fetch, timers, events), for other places and for tests.
 */
export function connect(url = globalThis.location?.origin, options = {}) {
  return new Client(String(url).replace(/\/+$/, ""), options);
}

class Client extends Events {
  #link;

  constructor(url, { env = globalThis, retryWrites = true, ...options }) {
    super();
    const emit = (name, value) => this._emit(name, value);
    this.ready = new Promise((resolve, reject) => {
      this.on("state", ({ state, error }) => {
        if (state === "connected") resolve(this);
        else if (state === "closed") reject(error);
      });
    });
    this.ready.catch(() => {}); // "close" tells it, too
    this.#link = new Link(url, { retryWrites, ...options }, env, emit);
    for (const [method, row] of Object.entries(COMMANDS)) {
      const [noun, verb] = method.split(".");
      this[noun] ??= {};
      this[noun][verb] = (...args) => this.#call(method, row, args);
    }
    this.#addWatches();
  }

  /** "connecting", "connected" or "closed". */
  get state() {
    return this.#link.state;
  }

  /** "ws", "sse" or "poll"; null while there is no connection. */
  get transport() {
    return this.#link.transport;
  }

  get session() {
    return this.#link.session;
  }

  /** Who this client is; before the first connection, who `connect` was told. */
  get user() {
    return this.#link.user;
  }

  /** Any method, also one that this client does not know; params: an array, or a map by name. */
  call(method, params = [], options = {}) {
    if (OWNED.has(method)) throw new TypeError(`${method} is the client's own; use rt.channel`);
    return this.#link.calls.make(method, params, options, COMMANDS[method]?.effect ?? "write");
  }

  /** Changes which transports may be used, as in `connect`; what is open goes on without loss. */
  use(transport) {
    this.#link.use(transport);
  }

  /** Ends it: subscriptions end, calls that are not answered fail. */
  close() {
    this.#link.end(new RtError(0, "closed", "the client was closed"));
  }

  /** A map after the required parameters names others, and options. */
  #call(method, { effect, params, required }, args) {
    const last = args.at(-1);
    const named = args.length > required && isMap(last) ? last : {};
    const values = named === last ? args.slice(0, -1) : [...args];
    const options = {};
    for (const [name, value] of Object.entries(named)) {
      const place = params.indexOf(name);
      if (place < 0) options[name] = value;
      else values[place] = value;
    }
    const filled = Array.from(values, (value) => value ?? null);
    return this.#link.calls.make(method, filled, options, effect);
  }

  // --- subscriptions ---

  #addWatches() {
    const watch = (parts, view, args) => this.#subscribe(watched(parts), args, { view });
    this.channel.subscribe = (name, ...args) => this.#subscribe(name, args);
    this.counter.watch = (name, ...args) => watch(["counter", name], ({ value }) => value, args);
    this.board.watchTop = (name, n, ...args) => watch(["board", name, "top", n], board, args);
    this.board.watchAround = (name, member, ...args) => {
      const radius = typeof args[0] === "number" ? args.splice(0, 1) : [];
      return watch(["board", name, "around", member, ...radius], board, args);
    };
    this.presence ??= {};
    this.presence.watch = (user, ...args) => watch(["presence", user], withoutFull, args);
    this.sale.watch = (name, ...args) => watch(["sale", name], withoutFull, args);
    this.sale.watchPlace = (name, ...args) => {
      const user = typeof args[0] === "string" ? args.shift() : this.user;
      if (!user) throw new TypeError("watchPlace needs a user: name one, or wait for rt.ready");
      return watch(["sale", name, "user", user], withoutFull, args);
    };
    this.sale.followLedger = (name, ...args) =>
      this.#subscribe(watched(["sale", name, "ledger"]), args, { pick: (message) => message.data });
  }

  /** args: options, a callback, both or neither. */
  #subscribe(channel, args, looks) {
    const callback = args.find((arg) => typeof arg === "function");
    const options = args.find(isMap) ?? {};
    const { feeds } = this.#link;
    const leave = (reader) => feeds.leave(reader);
    const reader = new Subscription(channel, { ...options, callback, ...looks }, leave);
    if (this.state === "closed") reader._end(new RtError(0, "closed", "the client was closed"));
    else feeds.join(reader);
    return reader;
  }
}

const watched = (parts) => `$${parts.map(escaped).join(":")}`;
const escaped = (name) => String(name).replaceAll("%", "%25").replaceAll(":", "%3A");
const board = ({ entries, count }) => ({ entries, count });
const withoutFull = ({ full, ...state }) => state;

function isMap(value) {
  if (value === null || typeof value !== "object") return false;
  const prototype = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}
