/**
 * Calls that are not answered yet, and what becomes of each when a connection is lost.
 *
 * Promises: calls leave in the order they were made, on every connection; every call ends once. What
 * may be sent again (reads, and writes under a key) waits for the next connection; the rest fails
 * with what is known. A write gets the key [client, n, done] (protocol.md section 3): n counts up,
 * every number up to `done` was answered, and at most CALLS_MAX are sent beyond it.
 */

import { encode, fromWire, lostError, RtError } from "./values.js";

const TIMEOUT_MS = 30_000; // of a call, unless it says otherwise
const CALLS_MAX = 8_000; // the server keeps at most 10,000 answers that a client has not done with
const RESEND_MS = 600_000; // by default the server remembers keys at least so long
const CHUNK_CHARS = 65_536; // of calls that leave together, about
const CHUNK_CALLS = 500;
const HEAD_CHARS = 256; // of a request beside its parameters, about
const FRAME_BYTES_MAX = 1024 * 1024;
const OPTIONS = new Set(["idempotency_key", "ack", "source", "as_user", "address"]);

export class Calls {
  frameBytesMax = FRAME_BYTES_MAX;

  #env;
  #retryWrites;
  #client;
  #ended = null; // why no call can be made any more
  #open = new Map(); // by id, in the order they were made
  #queue = []; // those to be sent, in that order too
  #lastId = 0;
  #lastNumber = 0;
  #done = 0;
  #doneBeyond = new Set(); // answered numbers above the first unanswered one

  /** wake: called when there is something to take. */
  constructor(env, retryWrites, wake) {
    this.#env = env;
    this.#retryWrites = retryWrites;
    this.wake = wake;
    const bytes = env.crypto.getRandomValues(new Uint8Array(16));
    this.#client = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  get size() {
    return this.#open.size;
  }

  /** The promise of the result. effect: "read", "write" or "session" (neither of both). */
  make(method, params, { timeout_ms = TIMEOUT_MS, ...options }, effect) {
    return new Promise((resolve, reject) => {
      const strange = Object.keys(options).find((name) => !OPTIONS.has(name));
      if (strange) throw new TypeError(`${method} has no parameter and no option ${strange}`);
      if (this.#ended) throw this.#ended;
      if (this.#open.size >= CALLS_MAX) {
        throw new RtError(300, "overloaded", `${CALLS_MAX} calls wait to be answered, the most`);
      }
      const call = this.#prepare(method, encode(params), resolve, reject);
      call.reads = effect === "read";
      call.writes = effect === "write";
      call.usersKey = "idempotency_key" in options || "source" in options;
      call.keyed = call.writes && (this.#retryWrites || call.usersKey);
      if (call.keyed && !("idempotency_key" in options)) call.number = ++this.#lastNumber;
      call.options = timeout_ms ? { ...encode(options), timeout_ms } : encode(options);
      if (timeout_ms) call.timer = this.#env.setTimeout(() => this.#expire(call), timeout_ms);
      this.#add(call);
    });
  }

  /** A call of the connection's own: the callbacks run right when the reply comes, for pushes may
   * stand behind it; forgotten when the connection is lost. */
  own(method, params, answered, refused) {
    const call = this.#prepare(method, params, answered, refused);
    call.isOwn = true;
    this.#add(call);
  }

  #prepare(method, params, resolve, reject) {
    const text = JSON.stringify(params);
    const size = text.length + HEAD_CHARS;
    if (size * 3 > this.frameBytesMax) {
      const bytes = new TextEncoder().encode(text).length + HEAD_CHARS;
      if (bytes > this.frameBytesMax) {
        const most = `the server takes at most ${this.frameBytesMax}`;
        throw new RtError(101, "frame_too_large", `${method} makes ${bytes} bytes, ${most}`);
      }
    }
    return { id: 0, method, params, size, options: {}, number: 0, sentAt: 0, resolve, reject };
  }

  #add(call) {
    call.id = ++this.#lastId;
    this.#open.set(call.id, call);
    this.#queue.push(call);
    if (this.#queue.length === 1) queueMicrotask(this.wake);
  }

  /** The next requests to send; none when all is sent, or has to wait for answers. */
  take() {
    const requests = [];
    const now = Date.now();
    let chars = 0;
    let taken = 0;
    for (const call of this.#queue) {
      if (chars >= CHUNK_CHARS || requests.length >= CHUNK_CALLS) break;
      if (call.number - this.#done > CALLS_MAX) break;
      taken += 1;
      if (!this.#open.has(call.id)) continue; // given up before it was sent
      call.sentAt ||= now;
      if (call.keyed && now - call.sentAt > RESEND_MS) {
        this.#fail(call, outcomeUnknown(call, "could not be sent again for too long"));
        continue;
      }
      requests.push([0, call.id, call.method, call.params, this.#optionsOf(call)]);
      chars += call.size;
    }
    this.#queue.splice(0, taken);
    return requests;
  }

  #optionsOf(call) {
    if (!call.number) return call.options;
    return { ...call.options, idempotency_key: [this.#client, call.number, this.#done] };
  }

  /** The reply to a call; one for a call that is over is dropped. */
  reply(id, error, result) {
    const call = this.#open.get(id);
    if (!call) return;
    this.#forget(call);
    if (call.expired) return;
    if (!error) call.resolve(result);
    else call.reject(refusal(call, fromWire(error)));
  }

  /** The connection is gone: what may be sent again is queued again, in the old order. */
  lost(cause) {
    this.#queue = [];
    for (const call of [...this.#open.values()]) {
      if (call.isOwn || call.expired) this.#forget(call);
      else if (!call.sentAt || call.reads || call.keyed) this.#queue.push(call);
      else this.#fail(call, unanswered(call, cause));
    }
  }

  /** No call can be made any more, and none that is open will be answered. */
  end(error) {
    this.#ended = error;
    this.#queue = [];
    for (const call of [...this.#open.values()]) {
      if (call.isOwn || call.expired) this.#forget(call);
      else if (!call.sentAt || call.reads) this.#fail(call, error);
      else this.#fail(call, unanswered(call, error.message));
    }
  }

  /** The caller waits no longer. A call that was sent stays open: its number is not done. */
  #expire(call) {
    call.expired = true;
    const what = `was not ${call.sentAt ? "answered" : "sent"} in time`;
    if (!call.sentAt) this.#forget(call);
    if (call.sentAt && call.writes && !call.usersKey) call.reject(outcomeUnknown(call, what));
    else call.reject(new RtError(0, "timeout", `${call.method} ${what}`, null, true));
  }

  #fail(call, error) {
    this.#forget(call);
    call.reject(error);
  }

  #forget(call) {
    this.#open.delete(call.id);
    this.#env.clearTimeout(call.timer);
    if (!call.number) return;
    this.#doneBeyond.add(call.number);
    while (this.#doneBeyond.delete(this.#done + 1)) this.#done += 1;
  }
}

/** Of a key of our own the caller knows nothing, so an error that speaks of it is put in hers. */
function refusal(call, error) {
  if (error.name === "outcome_unknown") error.retryable = call.usersKey;
  if (error.name !== "duplicate" || call.usersKey) return error;
  return outcomeUnknown(call, "was sent before and its answer is forgotten");
}

function unanswered(call, cause) {
  const what = `was sent and not answered: ${cause}`;
  return call.writes ? outcomeUnknown(call, what) : lostError(`${call.method} ${what}`);
}

function outcomeUnknown(call, what) {
  const message = `${call.method} ${what}; it may or may not have been applied`;
  return new RtError(501, "outcome_unknown", message, null, call.usersKey);
}

/** The error of a connection that the server closed. stops: do not come back. */
export function closedBy({ code, name, message, ...details }) {
  const error = lostError(`the server closed the connection (${name || code}): ${message}`);
  error.details = { code, name, ...details };
  error.stops = code >= 4500 && code < 5000;
  error.retryable = !error.stops;
  return error;
}
