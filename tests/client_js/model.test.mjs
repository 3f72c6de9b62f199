/**
 * A model: one channel with a short history, readers that come and go, connections that break
 * anywhere. Whatever the order of events, a reader gets ascending offsets, each once, and a gap of
 * the right size for what is missing; and when all is quiet, she is at the channel's end.
 */

import assert from "node:assert/strict";
import test from "node:test";

import { Gap } from "../../client/js/rtserver.js";
import { chances, settle, World } from "./world.mjs";

const KEPT = 6;
const PAGE = 3; // messages in one subscribe reply; the rest follows as pushes

const message = (offset) => ({ offset, data: offset, at: 0 });

class Server {
  birth = 1;
  offset = 0;
  told = null; // where the subscription is that the server has, if any

  get epoch() {
    return `e.${this.birth}`;
  }

  get oldest() {
    return Math.max(1, this.offset - KEPT + 1);
  }

  subscribe(since) {
    const isKnown = Array.isArray(since) && since[0] === this.epoch && since[1] <= this.offset;
    let from = this.offset;
    if (isKnown) from = Math.max(since[1], this.oldest - 1);
    else if (since?.last) from = Math.max(this.oldest - 1, this.offset - since.last);
    this.told = Math.min(from + PAGE, this.offset);
    const messages = [];
    for (let offset = from + 1; offset <= this.told; offset += 1) messages.push(message(offset));
    return { epoch: this.epoch, offset: this.told, recovered: isKnown && from === since[1], messages };
  }

  /** Answers the oldest request of a connection. */
  serve(socket) {
    const [, id, method, params] = socket.frames.shift();
    if (method === "server.hello") {
      const position = params.positions.c;
      socket.greets({ channels: position ? { c: this.subscribe(position) } : {} });
      socket.frames.shift(); // `greets` has opened it once more
    } else if (method === "channel.subscribe") {
      socket.says([1, id, null, this.subscribe(params[1])]);
    } else if (method === "channel.unsubscribe") {
      this.told = null;
      socket.says([1, id, null, { unsubscribed: true }]);
    } else if (method === "server.ping") {
      socket.says([1, id, null, {}]);
    }
  }

  push(socket) {
    if (this.told === null || this.told >= this.offset) return;
    const from = this.told + 1;
    if (from < this.oldest) {
      this.told = this.oldest - 1;
      socket.pushes("gap", { channel: "c", from, to: this.told, why: "history" });
    } else {
      this.told = from;
      socket.pushes("message", { channel: "c", ...message(from) });
    }
  }
}

class Reader {
  items = [];
  isClosed = false;

  constructor(rt, since) {
    this.since = since;
    this.subscription = rt.channel.subscribe("c", { since }, (item) => this.items.push(item));
    this.subscription.on("gap", (gap) => this.items.push(gap));
  }

  close() {
    this.isClosed = true;
    this.subscription.close();
  }

  check() {
    let next = Array.isArray(this.since) ? this.since[1] + 1 : null; // null: not known
    for (const item of this.items) {
      if (item instanceof Gap) {
        next = item.lost === null || next === null ? null : next + item.lost;
      } else {
        if (next !== null) assert.equal(item.offset, next, JSON.stringify(this));
        next = item.offset + 1;
      }
    }
  }
}

/** One run; what happens is drawn from the seed. */
async function run(seed) {
  const chance = chances(seed);
  const one = (list) => list[Math.floor(chance() * list.length)];
  const world = new World();
  world.chance = chance;
  const server = new Server();
  const rt = world.connect();
  const readers = [];

  const live = () => (world.socket?.isClosed ? null : world.socket);
  const serve = () => {
    const socket = live();
    if (socket && !socket.hasOpened) {
      socket.hasOpened = true;
      socket.opens();
    }
    if (socket?.frames.length) server.serve(socket);
  };
  const breaks = () => {
    server.told = null;
    live()?.breaks();
  };
  const join = () => {
    const place = [server.epoch, Math.floor(chance() * (server.offset + 1))];
    readers.push(new Reader(rt, one([undefined, { last: 2 }, place])));
  };
  const events = [
    ...Array(9).fill(() => { server.offset += 1; }),
    ...Array(8).fill(serve),
    ...Array(6).fill(() => live() && server.push(live())),
    ...Array(3).fill(join),
    () => one(readers.filter((reader) => !reader.isClosed))?.close(),
    breaks,
    breaks,
    () => world.passes(2_000),
    () => {
      if (chance() < 0.2) {
        breaks();
        server.birth += 1;
        server.offset = 0;
      }
    },
  ];
  for (let step = 0; step < 80; step += 1) {
    await one(events)();
    await settle();
  }
  for (let round = 0; round < 60; round += 1) {
    await world.passes(1_000);
    serve();
    if (live()) server.push(live());
    await settle();
  }
  for (const reader of readers) {
    reader.check();
    if (!reader.isClosed) assert.deepEqual(reader.subscription.position, [server.epoch, server.offset]);
  }
  rt.close();
}

for (let seed = 1; seed <= 200; seed += 1) test(`any order of events, seed ${seed}`, () => run(seed));
