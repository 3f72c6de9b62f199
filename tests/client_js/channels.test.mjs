import assert from "node:assert/strict";
import test from "node:test";

import { Gap } from "../../client/js/rtserver.js";
import { changed } from "../../client/js/subscription.js";
import { chances, settle, World } from "./world.mjs";

const reply = (offset, messages = [], recovered = false, epoch = "e.1") =>
  ({ epoch, offset, recovered, messages });
const message = (offset) => ({ offset, data: offset, at: 0 });
const range = (from, to) => Array.from({ length: to - from + 1 }, (_, n) => from + n);
const pushed = (offset, channel = "c") => ({ channel, ...message(offset) });

async function subscribed(options, first = reply(0)) {
  const world = new World();
  const rt = await world.connected();
  const got = [];
  const reader = rt.channel.subscribe("c", options ?? {}, (item) => got.push(item.offset));
  rt.on("gap", (gap) => got.push(gap));
  await settle();
  world.socket.answers("channel.subscribe", first);
  await settle();
  return { world, rt, got, reader };
}

async function again(world, channels, more = {}) {
  world.socket.breaks();
  const socket = await world.redials();
  socket.greets({ channels, ...more });
  await settle();
  return socket;
}

test("messages come in order and once", async () => {
  const { world, got, reader } = await subscribed();
  for (const offset of [1, 2, 2, 1, 3]) world.socket.pushes("message", pushed(offset));
  assert.deepEqual(got, [1, 2, 3]);
  assert.deepEqual(reader.position, ["e.1", 3]);
});

test("hello names positions and session, and the reply is gone on with", async () => {
  const { world, got } = await subscribed();
  world.socket.pushes("message", pushed(1));
  const socket = await again(world, { c: reply(3, [message(2), message(3)], true) }, { resumed: true });
  assert.deepEqual(socket.hello.positions, { c: ["e.1", 1] });
  assert.equal(socket.hello.session, "s1");
  socket.pushes("message", pushed(3));
  socket.pushes("message", pushed(4));
  assert.deepEqual(got, [1, 2, 3, 4]);
  assert.equal(socket.asked("channel.subscribe"), undefined);
});

test("a history that moved on is a gap, before what is left of it", async () => {
  const { world, got } = await subscribed();
  world.socket.pushes("message", pushed(1));
  await again(world, { c: reply(9, [message(8), message(9)]) });
  assert.deepEqual(got, [1, new Gap("c", 6, "history"), 8, 9]);
});

test("another epoch is a gap of unknown size", async () => {
  const { world, got, reader } = await subscribed();
  world.socket.pushes("message", pushed(7));
  const socket = await again(world, { c: reply(2, [], false, "f.1") });
  socket.pushes("message", pushed(3));
  assert.deepEqual(got, [7, new Gap("c", null, "epoch"), 3]);
  assert.deepEqual(reader.position, ["f.1", 3]);
});

test("a channel that ends before our position is another one", async () => {
  const { world, got } = await subscribed();
  world.socket.pushes("message", pushed(7));
  await again(world, { c: reply(4) });
  assert.deepEqual(got, [7, new Gap("c", null, "epoch")]);
});

test("skips of a recovered channel are no gap: it keeps the newest of each key", async () => {
  const { world, got } = await subscribed();
  world.socket.pushes("message", pushed(1));
  await again(world, { c: reply(9, [message(5), message(9)], true) });
  assert.deepEqual(got, [1, 5, 9]);
});

test("gap pushes", async () => {
  const { world, got, reader } = await subscribed();
  world.socket.pushes("gap", { channel: "c", from: 1, to: 4, why: "history" });
  world.socket.pushes("message", pushed(5));
  world.socket.pushes("gap", { channel: "c", lost: 3, why: "slow" });
  assert.deepEqual(got, [new Gap("c", 4, "history"), 5, new Gap("c", 3, "slow")]);
  assert.equal(reader.position[1], 5);
});

test("a subscribe that was not answered is sent anew, without the session's reply", async () => {
  const world = new World();
  const rt = await world.connected();
  const got = [];
  rt.channel.subscribe("c", { since: ["e.1", 2] }, (item) => got.push(item.offset));
  await settle();
  const socket = await again(world, { c: reply(5) }, { resumed: true });
  assert.deepEqual(socket.hello.positions, {});
  assert.deepEqual(socket.asked("channel.subscribe").params, ["c", ["e.1", 2], false]);
  socket.answers("channel.subscribe", reply(4, [message(3), message(4)], true));
  assert.deepEqual(got, [3, 4]);
});

test("transient messages have no offset", async () => {
  const { world, got } = await subscribed({}, reply(0, [], false, ""));
  for (let n = 0; n < 3; n += 1) world.socket.pushes("message", { channel: "c", data: n, at: 0 });
  await again(world, { c: reply(0, [], false, "") });
  world.socket.pushes("message", { channel: "c", data: 3, at: 0 });
  assert.equal(got.length, 4);
});

test("a second reader begins at the present, and the first misses nothing", async () => {
  const { world, rt, got } = await subscribed();
  world.socket.pushes("message", pushed(1));
  const second = [];
  rt.channel.subscribe("c", (item) => second.push(item.offset));
  await settle();
  assert.deepEqual(world.socket.asked("channel.subscribe").params, ["c", null, false]);
  world.socket.answers("channel.subscribe", reply(4)); // 2 to 4 were still to come
  world.socket.pushes("message", pushed(5));
  await settle();
  assert.deepEqual(world.socket.asked("channel.subscribe").params, ["c", ["e.1", 1], false]);
  world.socket.answers("channel.subscribe", reply(5, [2, 3, 4, 5].map(message), true));
  assert.deepEqual(got, [1, 2, 3, 4, 5]);
  assert.deepEqual(second, [5]);
});

test("a second reader of current values gets them", async () => {
  const { world, rt, got } = await subscribed({}, reply(9, [message(4), message(9)]));
  const second = [];
  rt.channel.subscribe("c", (item) => second.push(item.offset));
  await settle();
  world.socket.answers("channel.subscribe", reply(9, [message(4), message(9)]));
  assert.deepEqual([got, second], [[4, 9], [4, 9]]);
});

test("who leaves last ends the subscription at the server", async () => {
  const { world, rt, reader } = await subscribed();
  const other = rt.channel.subscribe("c", () => {});
  await settle();
  reader.close();
  await settle();
  assert.equal(world.socket.asked("channel.unsubscribe"), undefined);
  other.close();
  await settle();
  assert.deepEqual(world.socket.asked("channel.unsubscribe").params, ["c"]);
});

test("what was left while there was no connection is ended in the session", async () => {
  const { world, reader } = await subscribed();
  world.socket.breaks();
  reader.close();
  const socket = await world.redials();
  socket.greets({ channels: { c: reply(0) }, resumed: true });
  await settle();
  assert.deepEqual(socket.asked("channel.unsubscribe").params, ["c"]);
});

test("leaving and joining at once does not mix replies up", async () => {
  const { world, rt, reader } = await subscribed();
  reader.close();
  const got = [];
  rt.channel.subscribe("c", { since: { last: 1 } }, (item) => got.push(item.offset));
  await settle();
  world.socket.pushes("message", pushed(1));
  world.socket.answers("channel.subscribe", reply(2, [message(2)]));
  assert.deepEqual(got, [2]);
});

test("a refusal ends the subscription; one for now is asked again", async () => {
  const world = new World();
  const rt = await world.connected();
  const reader = rt.channel.subscribe("c");
  await settle();
  world.socket.refuses("channel.subscribe", [300, "overloaded", "later", null]);
  await world.passes(1_000);
  world.socket.refuses("channel.subscribe", [400, "forbidden", "no", null]);
  await assert.rejects(reader.ready, { name: "forbidden" });
  await assert.rejects(async () => {
    for await (const item of reader) assert.fail(item);
  }, { name: "forbidden" });
  assert.equal(world.socket.frames.filter((frame) => frame[2] === "channel.subscribe").length, 2);
});

test("the server may end a subscription", async () => {
  const { world, reader } = await subscribed();
  const ended = [];
  reader.on("end", (error) => ended.push(error.name));
  world.socket.pushes("unsubscribed", { channel: "c", code: 400, name: "forbidden", message: "no" });
  assert.deepEqual(ended, ["forbidden"]);
});

test("presence is asked for again when the session is gone", async () => {
  const { world, rt, reader } = await subscribed({ presence: true });
  assert.deepEqual(world.socket.asked("channel.subscribe").params, ["c", null, true]);
  const heard = [];
  reader.on("join", (who) => heard.push(who.users[0]));
  rt.on("leave", (who) => heard.push(who.count));
  world.socket.pushes("join", { channel: "c", users: ["ann"], count: 1 });
  world.socket.pushes("leave", { channel: "c", users: ["ann"], count: 0 });
  assert.deepEqual(heard, ["ann", 0]);
  const socket = await again(world, { c: reply(0, [], true) });
  assert.deepEqual(socket.asked("channel.subscribe").params, ["c", ["e.1", 0], true]);
  const kept = await again(world, { c: reply(0, [], true) }, { resumed: true });
  assert.equal(kept.asked("channel.subscribe"), undefined);
});

test("a fault in a callback stops nothing", async () => {
  const { world, rt, got } = await subscribed();
  const faults = [];
  const listeners = process.listeners("uncaughtException");
  process.removeAllListeners("uncaughtException");
  process.once("uncaughtException", (error) => faults.push(error.message));
  rt.channel.subscribe("c", () => {
    throw new Error("a fault of the page");
  });
  await settle();
  world.socket.answers("channel.subscribe", reply(0));
  world.socket.pushes("message", pushed(1));
  await settle();
  for (const listener of listeners) process.on("uncaughtException", listener);
  assert.deepEqual([got, faults], [[1], ["a fault of the page"]]);
});

// --- iterating ---

test("an iterator gets messages and gaps, and leaves by break", async () => {
  const world = new World();
  const rt = await world.connected();
  const reader = rt.channel.subscribe("c", { since: ["e.1", 1] });
  await settle();
  world.socket.answers("channel.subscribe", reply(5, [message(4), message(5)]));
  const got = [];
  for await (const item of reader) {
    got.push(item instanceof Gap ? `${item.lost} lost` : item.offset);
    if (got.length === 3) break;
  }
  await settle();
  assert.deepEqual(got, ["2 lost", 4, 5]);
  assert.ok(world.socket.asked("channel.unsubscribe"));
  await assert.rejects(rt.channel.subscribe("c", () => {})[Symbol.asyncIterator]().next(), TypeError);
});

test("a slow iterator holds a bounded number and hears what it lost", async () => {
  const world = new World();
  const rt = await world.connected();
  const reader = rt.channel.subscribe("c");
  await settle();
  world.socket.answers("channel.subscribe", reply(0));
  for (const offset of range(1, 25_001)) world.socket.pushes("message", pushed(offset));
  let [next, held] = [1, 0];
  for await (const item of reader) {
    held += 1;
    next += item instanceof Gap ? item.lost : 1;
    if (!(item instanceof Gap)) assert.equal(item.offset, next - 1);
    if (next === 25_002) break;
  }
  assert.ok(held <= 10_001, held);
});

// --- watches ---

test("watches give whole states", async () => {
  const world = new World();
  const rt = await world.connected();
  const states = [];
  const watch = rt.board.watchTop("a:b%", 2, (state) => states.push(state));
  await settle();
  assert.equal(world.socket.asked("channel.subscribe").params[0], "$board:a%3Ab%25:top:2");
  const entry = (rank, member, score) => ({ rank, member, score });
  const state = { full: true, entries: [entry(1, "ann", 5), entry(2, "bob", 4)], count: 2 };
  world.socket.answers("channel.subscribe", { ...reply(3, [], false, "w"), state });
  world.socket.pushes("message", {
    channel: watch.channel, offset: 4, at: 0,
    data: { enter: [entry(1, "eve", 9)], move: [entry(2, "ann", 5)], leave: ["bob"], count: 3 },
  });
  assert.deepEqual(states, [
    { entries: state.entries, count: 2 },
    { entries: [entry(1, "eve", 9), entry(2, "ann", 5)], count: 3 },
  ]);
  const socket = await again(world, { [watch.channel]: { ...reply(1, [], false, "v"), state } });
  assert.deepEqual(states.at(-1), { entries: state.entries, count: 2 });
  socket.pushes("message", { channel: watch.channel, offset: 2, at: 0, data: { ...state, count: 9 } });
  assert.equal(watch.value.count, 9);
});

test("counters and presence", async () => {
  const world = new World();
  const rt = await world.connected();
  const told = [];
  for (const [watch, state] of [
    [rt.counter.watch("likes", (value) => told.push(value)), { value: 7 }],
    [rt.presence.watch("ann", (value) => told.push(value)), { user: "ann", status: "away" }],
  ]) {
    await settle();
    const full = { full: true, ...state };
    const data = { channel: watch.channel, offset: 2, at: 0, data: full };
    const [, id] = world.socket.frames.find(([, , , params]) => params[0] === watch.channel);
    world.socket.says([1, id, null, { ...reply(1, [], false, "w"), state: full }], [2, "message", data]);
  }
  const presence = { user: "ann", status: "away" };
  assert.deepEqual(told, [7, 7, presence, presence]);
  rt.board.watchAround("b", "ann", 3);
  await settle();
  assert.equal(world.socket.asked("channel.subscribe").params[0], "$board:b:around:ann:3");
});

test("sales: differences name the items that changed", async () => {
  const world = new World();
  const rt = await world.connected();
  const states = [];
  const watch = rt.sale.watch("a:b", (state) => states.push(state));
  await settle();
  assert.equal(world.socket.asked("channel.subscribe").params[0], "$sale:a%3Ab");
  const sale = { state: "open", waiting: 3, items: { cup: { free: 4 }, seat: { free: 1 } } };
  world.socket.answers("channel.subscribe", { ...reply(1, [], false, "w"), state: { full: true, ...sale } });
  for (const [offset, data] of [[2, { waiting: 2, items: { seat: { free: 0 } } }], [3, { state: "closed" }]]) {
    world.socket.pushes("message", { channel: watch.channel, offset, at: 0, data });
  }
  const items = { cup: { free: 4 }, seat: { free: 0 } };
  assert.deepEqual(states, [sale, { ...sale, waiting: 2, items }, { state: "closed", waiting: 2, items }]);
  assert.equal(sale.items.seat.free, 1);
});

test("places: of the client's own user, or of the one that is named", async () => {
  const world = new World();
  const rt = world.connect();
  assert.throws(() => rt.sale.watchPlace("x", () => {}), TypeError);
  await settle();
  world.socket.greets({ user: "ann:1" });
  await settle();
  assert.equal(rt.user, "ann:1");
  const told = [];
  assert.equal(rt.sale.watchPlace("x", "bob").channel, "$sale:x:user:bob");
  const watch = rt.sale.watchPlace("x", (place) => told.push(place));
  assert.equal(watch.channel, "$sale:x:user:ann%3A1");
  await settle();
  const place = { state: "waiting", position: 7, holds: [], orders: [] };
  const state = { full: true, ...place };
  world.socket.answers("channel.subscribe", { ...reply(1, [], false, "w"), state });
  assert.deepEqual(told, [place]);
  assert.equal(new World().connect({ user: "eve" }).sale.watchPlace("x").channel, "$sale:x:user:eve");
});

test("a ledger is followed step by step, and a gap is told", async () => {
  const world = new World();
  const rt = await world.connected();
  const reader = rt.sale.followLedger("x", { since: ["e.1", 4] });
  await settle();
  assert.deepEqual(world.socket.asked("channel.subscribe").params, ["$sale:x:ledger", ["e.1", 4], false]);
  world.socket.answers("channel.subscribe", reply(4, [], true));
  const push = (seq) => ({ channel: reader.channel, offset: seq, at: 0, data: { seq, step: "reserved" } });
  world.socket.pushes("message", push(5));
  world.socket.pushes("gap", { channel: reader.channel, from: 6, to: 8, why: "slow" });
  world.socket.pushes("message", push(9));
  const got = [];
  for await (const item of reader) if (got.push(item) === 3) break;
  const steps = [5, 9].map((seq) => ({ seq, step: "reserved" }));
  assert.deepEqual(got, [steps[0], new Gap(reader.channel, 3, "slow"), steps[1]]);
  assert.deepEqual(reader.position, ["e.1", 9]);
});

test("an iterator of a watch holds the newest state only", async () => {
  const world = new World();
  const rt = await world.connected();
  const watch = rt.counter.watch("likes");
  await settle();
  world.socket.answers("channel.subscribe", { ...reply(1), state: { full: true, value: 1 } });
  for (const value of range(2, 50)) {
    const data = { full: true, value };
    world.socket.pushes("message", { channel: watch.channel, offset: value, at: 0, data });
  }
  for await (const value of watch) {
    assert.equal(value, 50);
    break;
  }
});

test("differences lead to the next state, whatever it is", () => {
  const chance = chances(7);
  const pick = () => {
    const members = range(1, 12).filter(() => chance() < 0.6).map((n) => `m${n}`);
    const sorted = members.sort(() => chance() - 0.5).slice(0, 6);
    return sorted.map((member, place) => ({ rank: place + 1, member, score: Math.floor(chance() * 9) }));
  };
  let old = { entries: pick(), count: 1 };
  for (let round = 0; round < 500; round += 1) {
    const entries = pick();
    const before = new Map(old.entries.map((entry) => [entry.member, entry]));
    const after = new Set(entries.map((entry) => entry.member));
    const difference = {
      enter: entries.filter((entry) => !before.has(entry.member)),
      move: entries.filter((entry) => before.has(entry.member)
        && JSON.stringify(before.get(entry.member)) !== JSON.stringify(entry)),
      leave: old.entries.map((entry) => entry.member).filter((member) => !after.has(member)),
      count: round,
    };
    const next = changed(old, difference);
    assert.deepEqual(next, { entries, count: round });
    old = next;
  }
});
