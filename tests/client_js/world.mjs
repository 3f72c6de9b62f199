/**
 * A browser without a network: its clock, chance, sockets and requests are the test's.
 *
 * Time is node's mocked time; `settle` lets promises run. A socket's other end is `server` methods.
 */

import { mock } from "node:test";
import { setImmediate as turn } from "node:timers/promises";

import { connect } from "../../client/js/rtserver.js";

export const LIMITS = { frame_bytes_max: 1024 * 1024 };

export class FakeSocket {
  bufferedAmount = 0;
  frames = []; // that the client sent
  isClosed = false;

  constructor(url, protocol) {
    Object.assign(this, { url, protocol });
  }

  send(text) {
    this.frames.push(...text.split("\n").map((line) => JSON.parse(line)));
  }

  close() {
    this.isClosed = true;
  }

  // --- the server's side ---

  opens() {
    this.onopen?.();
  }

  says(...frames) {
    this.onmessage?.({ data: frames.map((frame) => JSON.stringify(frame)).join("\n") });
  }

  pushes(name, params) {
    this.says([2, name, params]);
  }

  breaks(code = 1006) {
    this.onclose?.({ code, reason: "" });
  }

  get hello() {
    return this.frames.find(([, , method]) => method === "server.hello")[3];
  }

  /** Opens and answers hello. */
  greets(more = {}) {
    this.opens();
    const hello = { session: "s1", user: null, resumed: false, channels: {}, version: 1 };
    this.says([1, 0, null, { ...hello, heartbeat_ms: 25_000, limits: LIMITS, ...more }]);
    return this;
  }

  /** The newest request for a method: {id, params, options}. */
  asked(method) {
    const found = this.frames.filter(([kind, , name]) => kind === 0 && name === method).at(-1);
    return found && { id: found[1], params: found[3], options: found[4] };
  }

  answers(method, result) {
    this.says([1, this.asked(method).id, null, result]);
  }

  refuses(method, error) {
    this.says([1, this.asked(method).id, error, null]);
  }
}

export class World {
  sockets = [];
  requests = []; // {path, body} of fetch
  chance = () => 0.5;
  refusesSockets = false;
  respond = () => {
    throw new TypeError("fetch failed");
  };

  constructor() {
    mock.timers.reset();
    mock.timers.enable({ apis: ["setTimeout", "Date"], now: 1_700_000_000_000 });
    const world = this;
    this.window = new EventTarget();
    this.document = Object.assign(new EventTarget(), { visibilityState: "visible" });
    this.env = {
      crypto: globalThis.crypto,
      document: this.document,
      addEventListener: (...args) => this.window.addEventListener(...args),
      removeEventListener: (...args) => this.window.removeEventListener(...args),
      setTimeout: (...args) => globalThis.setTimeout(...args),
      clearTimeout: (timer) => globalThis.clearTimeout(timer),
      Math: { random: () => this.chance() },
      WebSocket: class extends FakeSocket {
        constructor(...args) {
          super(...args);
          world.sockets.push(this);
          if (world.refusesSockets) queueMicrotask(() => this.breaks());
        }
      },
      fetch: async (url, init) => {
        const { pathname, searchParams } = new URL(url);
        const request = { path: pathname, query: Object.fromEntries(searchParams), init };
        request.body = init.body && JSON.parse(init.body);
        world.requests.push(request);
        init.signal?.throwIfAborted();
        return world.respond(request);
      },
    };
  }

  connect(options = {}) {
    const rt = connect("http://server", { transport: "ws", env: this.env, ...options });
    this.states = [];
    rt.on("state", (state) => this.states.push(state));
    return rt;
  }

  /** A client that is connected by a WebSocket. */
  async connected(options = {}) {
    const rt = this.connect(options);
    await settle();
    this.socket.greets();
    await settle();
    return rt;
  }

  get socket() {
    return this.sockets.at(-1);
  }

  /** Time passes, and what it brings about. */
  async passes(ms) {
    mock.timers.tick(ms);
    await settle();
  }

  /** The newest socket, as soon as there is another than before. */
  async redials(most = 60_000) {
    const before = this.sockets.length;
    for (let waited = 0; this.sockets.length === before && waited < most; waited += 100) {
      await this.passes(100);
    }
    return this.socket;
  }
}

export async function settle() {
  for (let turns = 0; turns < 5; turns += 1) await turn();
}

/** A response as fetch gives it. */
export function json(body, status = 200) {
  return new Response(JSON.stringify(body), { status });
}

/** An event stream: [response, send(push), end()]. */
export function stream(signal) {
  let controller;
  const body = new ReadableStream({
    start(given) {
      controller = given;
    },
  });
  signal?.addEventListener("abort", () => {
    try {
      controller.error(signal.reason);
    } catch {
      // it has ended
    }
  });
  const encoder = new TextEncoder();
  const send = (push) => controller.enqueue(encoder.encode(`data: ${JSON.stringify(push)}\n\n`));
  return { response: new Response(body), send, end: () => controller.close() };
}

/** Numbers from 0 to 1 that a seed decides (a linear congruential generator). */
export function chances(seed) {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}
