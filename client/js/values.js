/**
 * Values as JSON (protocol.md section 5), errors, and the events of objects.
 *
 * `encode` and `decode` are each other's inverse for all that the protocol carries.
 */

const RESERVED = new Set(["$b64", "$i64", "$map"]);
const SAFE = 2n ** 53n;

/** What JSON.stringify makes the protocol's JSON of. Throws TypeError for NaN and infinities. */
export function encode(value) {
  if (typeof value === "bigint") {
    return -SAFE <= value && value <= SAFE ? Number(value) : { $i64: String(value) };
  }
  if (typeof value === "number" && !Number.isFinite(value)) {
    throw new TypeError(`${value} cannot be sent, JSON has no such number`);
  }
  if (value === null || typeof value !== "object") return value;
  if (value instanceof Uint8Array) return { $b64: base64(value) };
  if (Array.isArray(value)) return value.map(encode);
  if (typeof value.toJSON === "function") return encode(value.toJSON());
  const entries = Object.entries(value).filter(([, inner]) => inner !== undefined);
  const map = Object.fromEntries(entries.map(([key, inner]) => [key, encode(inner)]));
  return isReserved(map) ? { $map: map } : map;
}

/** The value that parsed JSON stands for; changes it in place. */
export function decode(value) {
  if (value === null || typeof value !== "object") return value;
  if (isReserved(value)) {
    if ("$i64" in value) return BigInt(value.$i64);
    if ("$b64" in value) return Uint8Array.from(atob(value.$b64), (char) => char.charCodeAt(0));
    value = value.$map;
  }
  for (const key of Object.keys(value)) value[key] = decode(value[key]);
  return value;
}

function isReserved(value) {
  if (Array.isArray(value)) return false;
  const keys = Object.keys(value);
  return keys.length === 1 && RESERVED.has(keys[0]);
}

function base64(bytes) {
  const chars = Array.from(bytes, (byte) => String.fromCharCode(byte));
  return btoa(chars.join(""));
}

// --- errors ---

const RETRYABLE = new Set([107]); // and all of 300 to 399

/** What the server refused (`code` and `name` of protocol.md section 8), or, with code 0, what
 * became of the call or the connection. retryable: sending it again may succeed, and is safe. */
export class RtError extends Error {
  constructor(code, name, message, details = null, retryable = isRetryable(code)) {
    super(message);
    this.code = code;
    this.name = name;
    this.details = details;
    this.retryable = retryable;
  }
}

const isRetryable = (code) => RETRYABLE.has(code) || (code >= 300 && code < 400);

/** The error of a reply: [code, name, message, details]. */
export const fromWire = (error) => new RtError(...error);

export const lostError = (message, details = null) =>
  new RtError(0, "connection_lost", message, details, true);

// --- events ---

export class Events {
  #callbacks = new Map();

  /** Calls `callback` at each event of that name; returns a function that ends this. */
  on(name, callback) {
    const callbacks = this.#callbacks.get(name) ?? new Set();
    this.#callbacks.set(name, callbacks.add(callback));
    return () => callbacks.delete(callback);
  }

  _emit(name, value) {
    for (const callback of [...(this.#callbacks.get(name) ?? [])]) {
      try {
        callback(value);
      } catch (error) {
        queueMicrotask(() => {
          throw error; // a fault of the page is reported as such, and stops no delivery
        });
      }
    }
  }
}
